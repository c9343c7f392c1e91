"""The golden evaluator: the integer function in integer arithmetic, numpy alone.

Sums are carried by float64 where BLAS is to do the work: every product and every partial sum is an
integer far below 2^53, so they are exact in whatever order they are added.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.integer_function import (
    INPUT,
    OUTPUTS,
    QMAX,
    QMIN,
    SIGMOID_SCALE,
    SIGMOID_ZERO_POINT,
    Add,
    Conv,
    IntegerFunction,
    Quantization,
    Resize,
    SiLU,
    saturate,
)

Codes = NDArray[np.int8]


def evaluate(function: IntegerFunction, codes: Codes) -> dict[str, Codes]:
    """Run the integer function.

    Shapes: `codes` int8 `[N, in_channels, H, W]` -> `y1` int8 `[N, C1, H, W]`, `y2` int8 `[N, C2, H/2, W/2]`.

    Raises:
        ValueError: the codes have a wrong shape or dtype.
    """
    function.config.check_features(codes.shape)
    if codes.dtype != np.int8:
        raise ValueError(f"codes must be int8, but are {codes.dtype}: quantise float features first")
    images = [trace(function, image[None]) for image in codes]
    return {
        name: np.concatenate([image[tensor] for image in images])
        for name, tensor in zip(OUTPUTS, function.outputs, strict=True)
    }


def trace(function: IntegerFunction, codes: Codes) -> dict[str, Codes]:
    """Every tensor of one evaluation, by name: what to compare, layer by layer, when a code differs.

    Shapes: `codes` int8 `[N, in_channels, H, W]`; each tensor int8 `[N, C, H or H/2, W or W/2]`.
    """
    tensors = {INPUT: codes}
    quantization = function.quantization
    for node in function.nodes:
        out = quantization[node.name]
        match node:
            case Conv():
                result = conv(tensors[node.input], node, quantization[node.input], function.multiplier(node), out)
            case SiLU():
                table = silu_table(quantization[node.input], out)
                result = table[tensors[node.input].astype(np.int16) - QMIN]
            case Add():
                a, b = node.inputs
                result = add(tensors[a], tensors[b], quantization[a], quantization[b], out)
            case Resize():
                result = resize(tensors[node.input])
        tensors[node.name] = result
    return tensors


def conv(codes: Codes, node: Conv, zero: Quantization, multiplier: NDArray[np.float32], out: Quantization) -> Codes:
    """`rne(f32(acc) * M[c]) + zo`: int8 `[N,I,H,W]` -> int8 `[N,O,H',W']`."""
    acc = accumulate(codes, node, zero.zero_point)
    if np.abs(acc).max(initial=0) >= 2**31:
        raise ValueError(f"`{node.name}` overflows its int32 accumulator")
    scaled = acc.astype(np.int32).astype(np.float32) * multiplier[:, None, None]
    return saturate(np.rint(scaled) + np.float32(out.zero_point))


def accumulate(codes: Codes, node: Conv, zero_point: int) -> NDArray[np.float64]:
    """`sum (qx - zx) * qw + b32`, exact: int8 `[N,I,H,W]` -> integer-valued float64 `[N,O,H',W']`."""
    p, s = node.padding, node.stride
    x = np.pad(codes.astype(np.float64) - zero_point, ((0, 0), (0, 0), (p, p), (p, p)))  # pads with code zx
    channels, per_group, k, _ = node.weight.shape
    height, width = ((n - k) // s + 1 for n in x.shape[2:])
    weight = node.weight.astype(np.float64)
    acc = np.zeros((len(x), channels, height * width))
    for i in range(k):
        for j in range(k):
            tap = x[:, :, i : i + s * height : s, j : j + s * width : s].reshape(len(x), x.shape[1], -1)
            if node.groups == 1:
                acc += weight[:, :, i, j] @ tap
            elif per_group == 1 and channels == node.groups:
                acc += weight[:, :, i, j] * tap
            else:
                raise ValueError(f"`{node.name}` has groups={node.groups}: only 1 or one per channel is known")
    return acc.reshape(len(x), channels, height, width) + node.bias[:, None, None]


def silu_table(inp: Quantization, out: Quantization) -> Codes:
    """SiLU of every code -128..127: int8 `[256]`."""
    codes = np.arange(QMIN, QMAX + 1)
    sigmoid = saturate(np.rint(sigmoid_steps(inp)) + SIGMOID_ZERO_POINT).astype(np.int32)
    product = (codes - inp.zero_point) * (sigmoid - SIGMOID_ZERO_POINT)
    multiplier = (inp.scale * SIGMOID_SCALE) / out.scale
    return saturate(np.rint(product.astype(np.float32) * multiplier) + np.float32(out.zero_point))


def sigmoid_steps(inp: Quantization) -> NDArray[np.float64]:
    """`256 * sigmoid(s*(q - z))` of every code, before rounding: float64 `[256]`."""
    x = np.float64(inp.scale) * (np.arange(QMIN, QMAX + 1) - inp.zero_point)
    return 256 / (1 + np.exp(-x))


def add(a: Codes, b: Codes, qa: Quantization, qb: Quantization, out: Quantization) -> Codes:
    """`rne((sa/so)*(qa-za) + (sb/so)*(qb-zb)) + zo`: int8 of equal shapes."""
    scale = np.float64(out.scale)
    left = (qa.scale / scale) * (a.astype(np.float64) - qa.zero_point)
    right = (qb.scale / scale) * (b.astype(np.float64) - qb.zero_point)
    return saturate(np.rint(left + right) + out.zero_point)


def resize(codes: Codes) -> Codes:
    """`floor((9a + 3b + 3c + d + 8) / 16)`, edges clamped: int8 `[N,C,H,W]` -> int8 `[N,C,2H,2W]`."""
    x = codes.astype(np.int32)
    for axis in (2, 3):
        x = _double(x, axis)
    return saturate((x + 8) >> 4)


def codes_sha256(y1: Codes, y2: Codes) -> str:
    """SHA-256 of the bytes of `y1`, then of `y2`: what an app compares on a device."""
    return hashlib.sha256(y1.tobytes() + y2.tobytes()).hexdigest()


def _double(x: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """`3 * near + far` at twice the resolution along an axis, the far one clamped at the edge."""
    count = x.shape[axis]
    near = np.repeat(np.arange(count), 2)
    far = np.clip(near + np.tile([-1, 1], count), 0, count - 1)
    doubled: NDArray[np.int32] = 3 * x.take(near, axis) + x.take(far, axis)
    return doubled
