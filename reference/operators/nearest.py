"""Nearest-neighbour resize by a whole factor: copies codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization


@dataclass(frozen=True, kw_only=True)
class Nearest(Operator):
    """Each code `factor` times along height and width.

    Attributes:
        factor: a whole number, 2 or more.
    """

    factor: int = 2
    moves_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.factor) is not int or not 2 <= self.factor <= 64:
            raise InputError(f"`factor` (={self.factor!r}) of `{self.name}` must be a whole number from 2 to 64")

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, C, factor*H, factor*W]`."""
        count, channels, height, width = inputs[0]
        return count, channels, self.factor * height, self.factor * width

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,C,H,W]` -> int8 `[N,C,factor*H,factor*W]`."""
        return codes[0].repeat(self.factor, axis=2).repeat(self.factor, axis=3)
