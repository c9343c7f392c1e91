"""Convolutions as others with the same codes, in which cells that lie side by side in memory are one cell's channels.

XNNPACK lays a map out channels last, so a row of `W` cells of `C` channels is also one of `W/n` cells of `n*C`, and
nothing moves. What a convolution multiplies then is the same, and zeros, but there is less around it: a window of fewer
cells for a stem that reads three channels in strides of two, fewer and fuller results for a head that has one channel.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from litehrnet_stage2.reference.operators import Conv
from litehrnet_stage2.reference.operators.base import Shape

MOST_STEM_CHANNELS = 4
"""That a stem may read: XNNPACK multiplies channels by fours, so two cells of more are no better than one."""

RESULTS_AT_ONCE = 16
"""Output channels that XNNPACK's convolutions compute at once, though there be fewer."""

MOST_PIXELS_AT_ONCE = 8
"""That a head joins: beyond, its zeros cost more than they save."""


@dataclass(frozen=True)
class SideBySide:
    """A convolution on a map of wider cells.

    Attributes:
        conv: reads and writes those.
        reads: how many cells of the input are one of its input's.
        writes: how many cells of the output are one of its output's.
    """

    conv: Conv
    reads: int = 1
    writes: int = 1


def side_by_side(conv: Conv, shape: Shape) -> SideBySide:
    """The cheapest form of a convolution that reads int8 `[1,C,H,W]` of `shape`: the same codes from all of them."""
    if conv.groups > 1 or conv.depthwise:
        return SideBySide(conv)
    return _stem(conv, shape) or _head(conv, shape) or SideBySide(conv)


def _stem(conv: Conv, shape: Shape) -> SideBySide | None:
    """Two columns as one: a stride of two becomes one of one."""
    _, channels, _, width = shape
    if conv.stride[1] != 2 or conv.dilation[1] != 1 or channels > MOST_STEM_CHANNELS or width % 2:
        return None
    top, left, bottom, _ = conv.padding
    outputs, _, kernel_height, kernel_width = conv.weight.shape
    before = -(-left // 2)
    first = 2 * before - left  # column of the first window that the kernel begins at
    columns = -(-(first + kernel_width) // 2)
    after = conv.shape(shape)[3] + columns - 1 - before - width // 2
    if after < 0:  # the last columns are in no window
        return None
    weight = np.zeros((outputs, channels, kernel_height, columns, 2), np.int8)
    weight.reshape(*weight.shape[:3], 2 * columns)[..., first : first + kernel_width] = conv.weight
    paired = dataclasses.replace(
        conv,
        weight=weight.transpose(0, 4, 1, 2, 3).reshape(outputs, 2 * channels, kernel_height, columns),
        stride=(conv.stride[0], 1),
        padding=(top, before, bottom, after),
    )
    return SideBySide(paired, reads=2)


def _head(conv: Conv, shape: Shape) -> SideBySide | None:
    """Takes as many cells as one as give the results that are computed at once; each sees itself alone."""
    outputs, channels = conv.weight.shape[:2]
    pointwise = conv.weight.shape[2:] == (1, 1) and conv.stride == (1, 1) and not any(conv.padding)
    together = min(MOST_PIXELS_AT_ONCE, RESULTS_AT_ONCE // outputs)
    while together > 1 and shape[3] % together:
        together -= 1
    if not pointwise or together < 2:
        return None
    weight = np.zeros((together, outputs, together, channels), np.int8)
    for cell in range(together):
        weight[cell, :, cell] = conv.weight[:, :, 0, 0]
    joined = dataclasses.replace(
        conv,
        weight=weight.reshape(together * outputs, together * channels, 1, 1),
        weight_scale=np.tile(conv.weight_scale, together),
        bias=np.tile(conv.bias, together),
    )
    return SideBySide(joined, reads=together, writes=together)
