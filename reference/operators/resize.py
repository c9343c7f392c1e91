"""Bilinear resize by a power of two on codes: its values lie on a grid, so that every tie can be broken upwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization, saturate

TIE_BREAKING_BITS = {2: 12, 4: 15, 8: 17}
"""By factor: a scale larger by `2**-bits` breaks each tie upwards and moves nothing else, in ONNX Runtime too."""


@dataclass(frozen=True, kw_only=True)
class Resize(Operator):
    """Bilinear, half-pixel centres, edges clamped, ties upwards; `floor((9a + 3b + 3c + d + 8) / 16)` for factor 2.

    Attributes:
        factor: 2, 4 or 8, along height and width alike; for others no rule is known that every runtime follows.
    """

    factor: int = 2
    moves_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.factor) is not int or self.factor not in TIE_BREAKING_BITS:
            raise InputError(f"`factor` (={self.factor!r}) of `{self.name}` must be one of {list(TIE_BREAKING_BITS)}")

    @property
    def cells(self) -> int:
        """The values are multiples of one part in so many: 16 for factor 2."""
        return (2 * self.factor) ** 2

    @property
    def tie_breaking_scale(self) -> np.float32:
        """A factor on the values, a little above 1, after which rounding to nearest rounds their ties upwards.

        It moves no value by a whole cell of the grid: 255 of the largest step are less than that.
        """
        step = 2.0 ** -TIE_BREAKING_BITS[self.factor]
        if not 255 * step < 1 / self.cells:
            raise AssertionError(f"a tie-breaking step of {step} moves more than the ties of factor {self.factor}")
        return np.float32(1 + step)

    @property
    def tie_breaking_offset(self) -> np.float32:
        """An addend that does the same: a quarter of a cell."""
        return np.float32(1 / (4 * self.cells))

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, C, factor*H, factor*W]`."""
        count, channels, height, width = inputs[0]
        return count, channels, self.factor * height, self.factor * width

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,C,H,W]` -> int8 `[N,C,factor*H,factor*W]`."""
        return resize(codes[0], self.factor)


def resize(codes: Codes, factor: int = 2) -> Codes:
    """`floor(weighted sum / cells + 1/2)`, edges clamped: int8 `[N,C,H,W]` -> int8 `[N,C,factor*H,factor*W]`."""
    x = codes.astype(np.int32)
    for axis in (2, 3):
        x = weighted_sums(x, axis, factor)
    shift = 2 * (2 * factor).bit_length() - 2
    return saturate((x + (1 << (shift - 1))) >> shift)


def weighted_sums(x: NDArray[np.int32], axis: int, factor: int) -> NDArray[np.int32]:
    """Along one axis, `2 * factor` times the value: weights `2*factor - d` and `d`, d = 1, 3, 5... from the centre."""
    count = x.shape[axis]
    phase = np.tile(np.arange(factor), count)
    near = np.repeat(np.arange(count), factor)
    offset = 2 * phase + 1 - factor  # of the cell's own centre, in steps of 1/(2*factor)
    far = np.clip(near + np.sign(offset), 0, count - 1)
    shape = [1] * x.ndim
    shape[axis] = -1
    weight = np.abs(offset).reshape(shape).astype(np.int32)
    out: NDArray[np.int32] = (2 * factor - weight) * x.take(near, axis) + weight * x.take(far, axis)
    return out
