"""Convolution in codes: an int32 sum, one float32 multiply, round half to even, in every runtime alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Operator, Shape
from litehrnet_stage2.reference.quantization import QMAX, QMIN, Codes, Quantization, saturate

LARGEST_ACCUMULATOR = 2**31
LEAST_MULTIPLIER, MOST_MULTIPLIER = 2.0**-32, 2.0**8  # XNNPACK, qs8-qc8w convolution


@dataclass(frozen=True, kw_only=True)
class Conv(Operator):
    """`rne(f32(acc) * M[c]) + zo`, `acc = sum (qx - zx) * qw + b32` in int32; zero padding means code `zx`.

    Attributes:
        weight: int8 `[O, I/groups, kh, kw]`, in [-127, 127].
        weight_scale: float32 `[O]`.
        bias: int32 `[O]`, on the grid `input scale * weight_scale`.
        stride, dilation: along height and width.
        padding: cells before and after, `(top, left, bottom, right)`.
        groups: of channels that see only each other.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, dtype, rank in (("weight", np.int8, 4), ("weight_scale", np.float32, 1), ("bias", np.int32, 1)):
            array = getattr(self, field)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != rank:
                raise InputError(f"`{field}` of `{self.name}` must be {np.dtype(dtype)} of rank {rank}")
        channels = len(self.weight)
        if not channels or self.weight_scale.shape != (channels,) or self.bias.shape != (channels,):
            raise InputError(f"`{self.name}` must have a scale and a bias for each of its {channels} channels")
        if not (np.isfinite(self.weight_scale).all() and (self.weight_scale > 0).all()):
            raise InputError(f"every weight scale of `{self.name}` must be finite and positive")
        for field, length, least in (("stride", 2, 1), ("dilation", 2, 1), ("padding", 4, 0)):
            value = getattr(self, field)
            if type(value) is not tuple or len(value) != length or any(type(v) is not int or v < least for v in value):
                raise InputError(f"`{field}` (={value}) of `{self.name}` must be {length} integers >= {least}")
        if type(self.groups) is not int or self.groups < 1 or channels % self.groups:
            raise InputError(f"`groups` (={self.groups}) of `{self.name}` must divide its {channels} channels")

    @property
    def depthwise(self) -> bool:
        """Whether each channel sees itself alone."""
        return self.groups == len(self.weight) and self.weight.shape[1] == 1

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, O, H', W']`."""
        (shape,) = inputs
        channels, per_group, *kernel = self.weight.shape
        if len(shape) != 4 or shape[1] != per_group * self.groups:
            raise InputError(f"`{self.name}` takes {per_group * self.groups} channels, but reads shape {list(shape)}")
        top, left, bottom, right = self.padding
        sizes = (shape[2] + top + bottom, shape[3] + left + right)
        out = tuple(
            (size - dilation * (k - 1) - 1) // stride + 1
            for size, k, stride, dilation in zip(sizes, kernel, self.stride, self.dilation, strict=True)
        )
        if min(out) < 1:
            raise InputError(f"the kernel {kernel} of `{self.name}` is larger than its input {list(shape)}")
        return (shape[0], channels, *out)

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,I,H,W]` -> int8 `[N,O,H',W']`."""
        return self.requantize(self.accumulate(codes[0], reads[0].zero_point), self.multiplier(reads[0], out), out)

    def bias_scale(self, read: Quantization) -> NDArray[np.float32]:
        """`f32(sx*sw[c])`, the scale of the accumulator and of the bias: float32 `[O]`."""
        return read.scale * self.weight_scale

    def multiplier(self, read: Quantization, out: Quantization) -> NDArray[np.float32]:
        """`M[c] = f32(f32(sx*sw[c]) / so)`: float32 `[O]`."""
        return self.bias_scale(read) / out.scale

    def requantize(self, acc: NDArray[np.float64], multiplier: NDArray[np.float32], out: Quantization) -> Codes:
        """`rne(f32(acc) * M[c]) + zo`: integer-valued float64 `[N,O,H',W']` -> int8.

        Raises:
            ValueError: a sum leaves int32.
        """
        if np.abs(acc).max(initial=0) >= LARGEST_ACCUMULATOR:
            raise InputError(f"`{self.name}` overflows its int32 accumulator")
        scaled = acc.astype(np.int32).astype(np.float32) * multiplier[:, None, None]
        return saturate(np.rint(scaled) + out.zero_point)

    def accumulate(self, codes: Codes, zero_point: int) -> NDArray[np.float64]:
        """`sum (qx - zx) * qw + b32`, exact: int8 `[N,I,H,W]` -> integer-valued float64 `[N,O,H',W']`.

        Float64 lets BLAS do the work: every partial sum is an integer far below 2^53, exact in any order.
        """
        top, left, bottom, right = self.padding
        x = np.pad(codes.astype(np.float64) - zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))
        channels, per_group, kernel_height, kernel_width = self.weight.shape
        count, _, height, width = self.shape(codes.shape)
        (sy, sx), (dy, dx), groups = self.stride, self.dilation, self.groups
        weight = self.weight.astype(np.float64).reshape(groups, channels // groups, per_group, -1)
        acc = np.zeros((count, groups, channels // groups, height * width))
        for i in range(kernel_height):
            for j in range(kernel_width):
                tap = x[:, :, i * dy : i * dy + sy * (height - 1) + 1 : sy, j * dx : j * dx + sx * (width - 1) + 1 : sx]
                tap = tap.reshape(count, groups, per_group, -1)
                w = weight[..., i * kernel_width + j]
                acc += w * tap if per_group == 1 else w @ tap
        return acc.reshape(count, channels, height, width) + self.bias[:, None, None]

    def reach(self, zero_point: int) -> int:
        """The largest magnitude of any channel's sum, whatever the input codes."""
        weight = self.weight.astype(np.int64).reshape(len(self.weight), -1)
        up, down = QMAX - zero_point, QMIN - zero_point
        positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
        bias: NDArray[np.int64] = self.bias.astype(np.int64)
        highest = bias + up * positive + down * negative
        lowest = bias + down * positive + up * negative
        return int(max(np.abs(highest).max(), np.abs(lowest).max()))

    def least_scales(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[tuple[str, float]]:
        """The result's, so that no multiplier is past what XNNPACK takes."""
        yield self.name, float(self.bias_scale(reads[0]).max()) / MOST_MULTIPLIER
