"""Maximum over windows: compares codes, which keeps their quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Operator, Shape
from litehrnet_stage2.reference.quantization import QMIN, Codes, Quantization


@dataclass(frozen=True, kw_only=True)
class MaxPool(Operator):
    """The largest code of each window; cells of the padding never win.

    Attributes:
        kernel, stride: along height and width.
        padding: cells before and after, `(top, left, bottom, right)`, each less than the kernel.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    moves_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, length, least in (("kernel", 2, 1), ("stride", 2, 1), ("padding", 4, 0)):
            value = getattr(self, field)
            if type(value) is not tuple or len(value) != length or any(type(v) is not int or v < least for v in value):
                raise InputError(f"`{field}` (={value}) of `{self.name}` must be {length} integers >= {least}")
        if any(cells >= size for cells, size in zip(self.padding, self.kernel * 2, strict=True)):
            raise InputError(f"`padding` (={self.padding}) of `{self.name}` must be less than its kernel {self.kernel}")

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, C, H', W']`."""
        count, channels, height, width = inputs[0]
        top, left, bottom, right = self.padding
        sizes = (height + top + bottom, width + left + right)
        out = tuple((size - k) // s + 1 for size, k, s in zip(sizes, self.kernel, self.stride, strict=True))
        if min(out) < 1:
            raise InputError(f"the window {self.kernel} of `{self.name}` is larger than its input {list(inputs[0])}")
        return (count, channels, *out)

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,C,H,W]` -> int8 `[N,C,H',W']`."""
        top, left, bottom, right = self.padding
        x = np.pad(codes[0], ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=QMIN)
        windows = np.lib.stride_tricks.sliding_window_view(x, self.kernel, axis=(2, 3))
        result: Codes = windows[:, :, :: self.stride[0], :: self.stride[1]].max(axis=(4, 5))
        return result
