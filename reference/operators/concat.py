"""Concatenation of channels: copies codes, so all that it joins share one quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization


@dataclass(frozen=True, kw_only=True)
class Concat(Operator):
    """The codes of its inputs, channel after channel."""

    moves_codes: ClassVar[bool] = True
    reads: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, C1 + C2 + ..., H, W]`."""
        count, _, *size = inputs[0]
        if any((shape[0], *shape[2:]) != (count, *size) for shape in inputs):
            raise InputError(f"`{self.name}` joins tensors of different sizes: {[list(shape) for shape in inputs]}")
        return (count, sum(shape[1] for shape in inputs), *size)

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,Ci,H,W]` each -> int8 `[N,C,H,W]`."""
        return np.concatenate(codes, axis=1)
