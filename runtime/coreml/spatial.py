"""The Core ML operators that look around in space: convolution and resizing.

Same conventions as `operators.py`, which lists them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.program import Array


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    """Cross-correlation in any number of dimensions: `[N, I, *D]` and `[O, I/groups, *K]` to `[N, O, *E]`.

    It sums in float32, in an order that is not fixed: exact where all values are integers whose sums stay
    within 2**24, and within rounding elsewhere.
    """
    rank, groups = x.ndim - 2, int(groups)
    if rank < 1 or weight.ndim != x.ndim:
        raise InputError(f"`x` of shape {x.shape} and `weight` of shape {weight.shape} must have one rank >= 3")
    batch, channels = x.shape[:2]
    filters, depth, *kernel = weight.shape
    if groups < 1 or filters % groups or channels != depth * groups:
        raise InputError(f"{channels} channels and a weight of shape {weight.shape} do not fit {groups} groups")
    steps = _each(strides, "strides", [1] * rank, least=1)
    spread = _each(dilations, "dilations", [1] * rank, least=1)
    extents = [(length - 1) * step + 1 for length, step in zip(kernel, spread, strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *_paddings(pad_type, pad, extents, steps)])
    every: tuple[Any, ...] = (..., *(slice(None, None, step) for step in (*steps, *spread)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extents, tuple(range(2, x.ndim)))[every]
    lengths = windows.shape[2:-rank]  # of windows [N, I, *E, *K], which is a view

    outputs = filters // groups
    if depth == 1:
        # Depthwise: a product of matrices this thin is slower than a sum of scaled views.
        product = np.zeros((batch, groups, outputs, *lengths), np.float32)
        for position in np.ndindex(*kernel):
            at: tuple[Any, ...] = (..., *position)
            product += windows[:, :, None][at] * weight[at].reshape(groups, outputs, *[1] * rank)
    else:
        kernel_first = (0, 1, *range(x.ndim, x.ndim + rank), *range(2, x.ndim))
        columns = windows.transpose(kernel_first).reshape(batch, groups, -1, math.prod(lengths))
        product = weight.reshape(groups, outputs, -1) @ columns
    result = product.reshape(batch, filters, *lengths)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


def max_pool(
    x: Array,
    kernel_sizes: Array,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    ceil_mode: Array | bool = False,
) -> Array:
    """The largest value of each window: `[N, C, *D]` to `[N, C, *E]`; cells of the padding never win."""
    if bool(ceil_mode):
        raise InputError("`ceil_mode` (=True) is not evaluated: convert with explicit padding")
    extents = [int(size) for size in kernel_sizes]
    steps = _each(strides, "strides", [1] * len(extents), least=1)
    sides = _paddings(pad_type, pad, extents, steps)
    padded = np.pad(x, [(0, 0), (0, 0), *sides], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, extents, tuple(range(2, x.ndim)))
    every: tuple[Any, ...] = (slice(None), slice(None), *(slice(None, None, step) for step in steps))
    return np.asarray(windows[every].max(axis=tuple(range(x.ndim, x.ndim + len(extents)))))


def _paddings(pad_type: str, pad: Array | None, extents: list[int], strides: list[int]) -> list[tuple[int, int]]:
    """Before and after for each dimension."""
    match pad_type:
        case "valid":
            return [(0, 0)] * len(extents)
        case "custom":
            sides = _each(pad, "pad", [0] * 2 * len(extents), least=0)
            return list(zip(sides[::2], sides[1::2], strict=True))
        case "same" | "same_lower" if all(n % 2 for n in extents) and all(stride == 1 for stride in strides):
            return [(extent // 2, extent // 2) for extent in extents]
        case "same" | "same_lower":
            raise InputError(
                f"`pad_type` {pad_type!r} with strides {strides} and a kernel that covers {extents} does not "
                "say on which side it pads: only odd kernels of stride 1 are evaluated; convert with `pad`"
            )
    raise InputError(f"`pad_type` (={pad_type!r}) must be 'valid', 'custom', 'same' or 'same_lower'")


def _each(given: Array | None, what: str, default: list[int], *, least: int) -> list[int]:
    values = default if given is None else [int(value) for value in given]
    if len(values) != len(default) or any(value < least for value in values):
        raise InputError(f"`{what}` (={values}) must be {len(default)} integers >= {least}")
    return values


def _align_corners(size: int, to: int) -> Array:
    return np.arange(to) * ((size - 1) / (to - 1)) if to > 1 else np.array([(size - 1) / 2])


def _strict_align_corners(size: int, to: int) -> Array:
    return _align_corners(size, to) if to > 1 else np.zeros(1)


def _unalign_corners(size: int, to: int) -> Array:
    return (np.arange(to) + 0.5) * (size / to) - 0.5


def _offset_corners(size: int, to: int) -> Array:
    return (np.arange(to) + 0.5) * (max(1, size - 1) / to)


def _default(size: int, to: int) -> Array:
    return np.arange(to) * (size / to)


# Where in `size` samples each of `to` samples is taken.
_SAMPLING: dict[str, Callable[[int, int], Array]] = {
    "DEFAULT": _default,
    "STRICT_ALIGN_CORNERS": _strict_align_corners,
    "ALIGN_CORNERS": _align_corners,
    "OFFSET_CORNERS": _offset_corners,
    "UNALIGN_CORNERS": _unalign_corners,
}


def _interpolate(x: Array, sizes: Sequence[int], sampling_mode: str) -> Array:
    """Linear interpolation of the last `len(sizes)` axes, one after the other; edges are clamped."""
    if sampling_mode not in _SAMPLING:
        raise InputError(f"`sampling_mode` (={sampling_mode!r}) must be one of {', '.join(_SAMPLING)}")
    if len(sizes) > x.ndim or any(size < 1 for size in sizes):
        raise InputError(f"`x` of shape {x.shape} cannot be resized to {list(sizes)}")
    for axis, size in enumerate(sizes, start=x.ndim - len(sizes)):
        last = x.shape[axis] - 1
        grid = np.clip(_SAMPLING[sampling_mode](x.shape[axis], size), 0, last)
        low = np.floor(grid).astype(np.intp)
        share = (grid - low).reshape(-1, *[1] * (x.ndim - 1 - axis))
        below, above = x.take(low, axis), x.take(np.minimum(low + 1, last), axis)
        x = below * (1 - share).astype(np.float32) + above * share.astype(np.float32)
    return x


def upsample_bilinear(
    x: Array,
    scale_factor_height: Array | float = 1,
    scale_factor_width: Array | float = 1,
    align_corners: Array | bool = True,
) -> Array:
    """Resize `[..., H, W]` to `floor(H * height)` by `floor(W * width)`, half-pixel unless aligned."""
    height, width = x.shape[-2:]
    sizes = math.floor(height * float(scale_factor_height)), math.floor(width * float(scale_factor_width))
    return _interpolate(x, sizes, "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS")


def upsample_nearest_neighbor(
    x: Array, scale_factor_height: Array | float = 1, scale_factor_width: Array | float = 1
) -> Array:
    """Repeat each sample of `[..., H, W]` a whole number of times each way."""
    factors = float(scale_factor_height), float(scale_factor_width)
    if not all(factor >= 1 and factor.is_integer() for factor in factors):
        raise InputError(f"the scale factors {factors} must be whole numbers: others have no documented rule")
    return x.repeat(int(factors[0]), -2).repeat(int(factors[1]), -1)


def resize_bilinear(
    x: Array,
    target_size_height: Array | int = 1,
    target_size_width: Array | int = 1,
    sampling_mode: str = "DEFAULT",
) -> Array:
    """Resize `[..., H, W]` to the target size."""
    return _interpolate(x, (int(target_size_height), int(target_size_width)), sampling_mode)


def resize(
    x: Array,
    shape: Array,
    resized_dims: Array,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """Resize the last `resized_dims` axes to the last entries of `shape`; a 0 there keeps the length."""
    if interpolation_mode != "LINEAR":
        raise InputError(f"`interpolation_mode` (={interpolation_mode!r}) must be 'LINEAR'")
    count = int(resized_dims)
    if not 0 < count <= min(len(shape), x.ndim):
        raise InputError(f"`resized_dims` (={count}) must be at least 1 and within `shape` and the rank of `x`")
    sizes = [int(size) or length for size, length in zip(shape[-count:], x.shape[-count:], strict=True)]
    return _interpolate(x, sizes, sampling_mode)
