"""What each Core ML operator computes: a table from operator to function.

The rules are those of coremltools' operator documentation (Model Intermediate Language, iOS15 to iOS18). A
function's parameters are the operator's, by name, and a default is the documented one. Floating-point
tensors come and go as float32, integers and booleans as they are, and strings come as `str`.

To add an operator, write its function and give it a line in the table at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.coreml.spatial import (
    conv,
    max_pool,
    resize,
    resize_bilinear,
    upsample_bilinear,
    upsample_nearest_neighbor,
)
from litehrnet_stage2.runtime.program import Array

MilOperator = Callable[..., Array]

_CASTS: dict[str, np.dtype[Any]] = {
    "bool": np.dtype(np.bool_),
    "fp16": np.dtype(np.float16),
    "fp32": np.dtype(np.float32),
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "uint8", "uint16")},
}


def quantize(
    input: Array, scale: Array, output_dtype: str, zero_point: Array | None = None, axis: Array | None = None
) -> Array:
    """`clip(round(input / scale) + zero_point)`: one division, half to even, then saturate."""
    if output_dtype not in ("int8", "uint8"):
        raise InputError(f"`output_dtype` (={output_dtype!r}) must be 'int8' or 'uint8'")
    if np.isnan(input).any():
        raise InputError("its input has values that are not a number, and those have no code")
    limits = np.iinfo(output_dtype)
    codes = input / _along(axis, scale, input)
    np.rint(codes, out=codes)
    if zero_point is not None:
        codes += _along(axis, zero_point, input)
    return np.clip(codes, limits.min, limits.max, out=codes).astype(output_dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, axis: Array | None = None) -> Array:
    """`scale * (input - zero_point)`, one scale or one for each index along `axis`."""
    codes = input.astype(np.float32)
    if zero_point is not None:
        codes -= _along(axis, zero_point, input)
    return codes * _along(axis, scale, input)


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """`dequantize` of a constant, the way iOS16 and iOS17 write it: `axis` is always there."""
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """`scale * (data - offset)` of a constant, the way iOS18 writes it: a scale for each block."""
    codes = data.astype(np.float32)
    if offset is not None:
        codes -= _by_block(offset, data)
    return codes * _by_block(scale, data)


def _along(axis: Array | None, parameter: Array, data: Array) -> Array:
    """A scale or zero point, as float32 and ready to broadcast: a vector lies along `axis` of `data`."""
    if parameter.ndim == 0:
        return parameter.astype(np.float32)
    if parameter.ndim > 1 or axis is None:
        raise InputError(f"a scale or zero point of shape {parameter.shape} must be a vector along an `axis`")
    index = range(data.ndim)[int(axis)]
    if len(parameter) != data.shape[index]:
        raise InputError(f"{len(parameter)} scales or zero points do not fit axis {index} of shape {data.shape}")
    shape = [1] * data.ndim
    shape[index] = -1
    return parameter.astype(np.float32).reshape(shape)


def _by_block(parameter: Array, data: Array) -> Array:
    """A scale or offset, as float32, each of its entries repeated over the block of `data` it is for."""
    if parameter.ndim != data.ndim or any(n == 0 or m % n for m, n in zip(data.shape, parameter.shape, strict=True)):
        raise InputError(f"a scale or offset of shape {parameter.shape} does not cut {data.shape} into equal blocks")
    repeated = parameter.astype(np.float32)
    for axis, (length, count) in enumerate(zip(data.shape, parameter.shape, strict=True)):
        if 1 < count < length:
            repeated = repeated.repeat(length // count, axis)
    return repeated


def sigmoid(x: Array) -> Array:
    """`1 / (1 + e**-x)`, taken in float64 so that every processor rounds to the same float32."""
    return _sigmoid64(x).astype(np.float32)


def silu(x: Array) -> Array:
    """`x * sigmoid(x)`, taken in float64 and rounded to float32."""
    # The limit at minus infinity is 0, where the product would not be a number.
    return np.where(np.isneginf(x), 0.0, x * _sigmoid64(x)).astype(np.float32)


def _sigmoid64(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


def softmax(x: Array, axis: Array | int = -1) -> Array:
    """`e**x / sum(e**x)` along `axis`."""
    powers = np.exp(x.astype(np.float64) - x.max(int(axis), keepdims=True))
    return np.asarray(powers / powers.sum(int(axis), keepdims=True), np.float32)


def clip(x: Array, alpha: Array, beta: Array) -> Array:
    """`min(max(x, alpha), beta)`."""
    return np.minimum(np.maximum(x, alpha), beta)


def inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    """`1 / (x + epsilon)`."""
    return np.asarray(1 / (x + np.float32(epsilon)))


def cast(x: Array, dtype: str) -> Array:
    """`x` as another type: rounded to nearest for a float, cut towards zero for an integer."""
    if dtype not in _CASTS:
        raise InputError(f"`dtype` (={dtype!r}) must be one of {', '.join(_CASTS)}")
    target = _CASTS[dtype]
    if x.dtype.kind == "f" and target.kind in "iu":
        limits: np.iinfo[Any] = np.iinfo(target)
        whole = np.trunc(x)
        if not ((whole >= limits.min) & (whole <= limits.max)).all():
            raise InputError(f"its input has values that {dtype} cannot hold, which has no documented result")
    return x.astype(target)


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x @ weight.T + bias`: `[..., in]` and `[out, in]` to `[..., out]`."""
    product = x @ weight.T
    return product if bias is None else product + bias


def matmul(x: Array, y: Array, transpose_x: Array | bool = False, transpose_y: Array | bool = False) -> Array:
    """`x @ y` on the last two axes, the ones before broadcast."""
    left = np.swapaxes(x, -1, -2) if transpose_x and x.ndim > 1 else x
    right = np.swapaxes(y, -1, -2) if transpose_y and y.ndim > 1 else y
    return np.asarray(left @ right)


def reduce_mean(x: Array, axes: Array | None = None, keep_dims: Array | bool = False) -> Array:
    """The mean along `axes`, all of them if not given."""
    over = None if axes is None else tuple(int(axis) for axis in axes)
    return np.asarray(x.mean(over, dtype=np.float64, keepdims=bool(keep_dims)), np.float32)


def reduce_sum(x: Array, axes: Array | None = None, keep_dims: Array | bool = False) -> Array:
    """The sum along `axes`, all of them if not given; of whole numbers exact below 2^24, in whatever order."""
    along = None if axes is None else tuple(np.atleast_1d(axes).tolist())
    return np.asarray(np.sum(x, axis=along, keepdims=bool(keep_dims), dtype=np.float64).astype(x.dtype))


def sigmoid_hard(x: Array, alpha: Array | float = 0.2, beta: Array | float = 0.5) -> Array:
    """`min(max(alpha * x + beta, 0), 1)`."""
    return np.asarray(np.clip(x * np.float32(alpha) + np.float32(beta), 0, 1))


def reshape(x: Array, shape: Array) -> Array:
    """`x` in another shape: -1 is what remains, 0 the length of `x` at the same place from the right."""
    lengths = [int(length) for length in shape]
    for back in range(1, len(lengths) + 1):
        if lengths[-back] == 0:
            lengths[-back] = x.shape[-back] if back <= x.ndim else 1
    return x.reshape(lengths)


def transpose(x: Array, perm: Array) -> Array:
    """`x` with its axes in the order `perm`."""
    return x.transpose([int(axis) for axis in perm])


def expand_dims(x: Array, axes: Array) -> Array:
    """`x` with a new axis of length 1 at each of `axes`, counted in the result."""
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


def squeeze(x: Array, axes: Array | None = None) -> Array:
    """`x` without `axes`, which have length 1; without all such axes if not given."""
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


def concat(values: tuple[Array, ...], axis: Array, interleave: Array | bool = False) -> Array:
    """`values` one after another along `axis`; if interleaved, the first of each, then the second of each."""
    index = range(values[0].ndim)[int(axis)]
    if not interleave:
        return np.concatenate(values, index)
    shape = list(values[0].shape)
    shape[index] *= len(values)
    return np.stack(values, index + 1).reshape(shape)


def _of_one(function: Callable[[Array], Array]) -> MilOperator:
    return lambda x: np.asarray(function(x))


def _of_two(function: Callable[[Array, Array], Array]) -> MilOperator:
    return lambda x, y: np.asarray(function(x, y))


OPERATORS: Mapping[str, MilOperator] = MappingProxyType(
    {
        "abs": _of_one(np.abs),
        "add": _of_two(np.add),
        "cast": cast,
        "ceil": _of_one(np.ceil),
        "clip": clip,
        "concat": concat,
        "constexpr_affine_dequantize": constexpr_affine_dequantize,
        "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
        "conv": conv,
        "dequantize": dequantize,
        "expand_dims": expand_dims,
        "floor": _of_one(np.floor),
        "identity": _of_one(np.positive),
        "inverse": inverse,
        "linear": linear,
        "matmul": matmul,
        "maximum": _of_two(np.maximum),
        "minimum": _of_two(np.minimum),
        "mul": _of_two(np.multiply),
        "quantize": quantize,
        "real_div": _of_two(np.divide),
        "max_pool": max_pool,
        "reduce_mean": reduce_mean,
        "reduce_sum": reduce_sum,
        "relu": _of_one(lambda x: np.maximum(x, 0)),
        "relu6": _of_one(lambda x: np.clip(x, 0, 6)),
        "reshape": reshape,
        "resize": resize,
        "resize_bilinear": resize_bilinear,
        "round": _of_one(np.rint),
        "sigmoid": sigmoid,
        "sigmoid_hard": sigmoid_hard,
        "silu": silu,
        "softmax": softmax,
        "sqrt": _of_one(np.sqrt),
        "squeeze": squeeze,
        "sub": _of_two(np.subtract),
        "tanh": _of_one(lambda x: np.tanh(x, dtype=np.float64).astype(np.float32)),
        "transpose": transpose,
        "upsample_bilinear": upsample_bilinear,
        "upsample_nearest_neighbor": upsample_nearest_neighbor,
    }
)
