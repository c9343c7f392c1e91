"""Float operators as the networks, their quantisation-aware forms and the exported modules share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]
"""Cells before and after: `(top, left, bottom, right)`."""


class Geometry(Protocol):
    """Where the taps of a convolution lie."""

    @property
    def stride(self) -> tuple[int, int]:
        """Along height and width."""

    @property
    def padding(self) -> Padding:
        """Cells of zero."""

    @property
    def dilation(self) -> tuple[int, int]:
        """Along height and width."""

    @property
    def groups(self) -> int:
        """How many groups of channels there are that see only each other."""


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`[B,I,H,W] -> [B,O,H',W']`; padding that is not the same on both sides becomes an operator of its own."""
    top, left, bottom, right = geometry.padding
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = pad(x, geometry.padding), (0, 0)
    return F.conv2d(x, weight, bias, geometry.stride, padding, geometry.dilation, geometry.groups)


class Window(Protocol):
    """The windows of a pooling."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def stride(self) -> tuple[int, int]:
        """Along height and width."""

    @property
    def padding(self) -> Padding:
        """Cells that never win."""


def max_pool(x: Tensor, window: Window) -> Tensor:
    """`[B,C,H,W] -> [B,C,H',W']`; padding that is not the same on both sides becomes an operator of its own."""
    top, left, bottom, right = window.padding
    if (top, left) == (bottom, right):
        return F.max_pool2d(x, window.kernel, window.stride, (top, left))
    return F.max_pool2d(pad(x, window.padding, value=-torch.inf), window.kernel, window.stride)


def pad(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    """`[B,C,H,W]` with cells of one value around it."""
    top, left, bottom, right = padding
    return F.pad(x, (left, right, top, bottom), value=value) if any(padding) else x


def upsample(x: Tensor, factor: int) -> Tensor:
    """Bilinear, half-pixel centres, edges clamped: `[B,C,H,W]` -> `[B,C,factor*H,factor*W]`."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _identity(x: Tensor) -> Tensor:
    return x


def _unit(x: Tensor) -> Tensor:
    return x.clamp(0, 1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": _identity,
    "relu": F.relu,
    "relu6": F.relu6,
    "unit": _unit,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
}
"""By the names that tables have for them, elementwise."""
