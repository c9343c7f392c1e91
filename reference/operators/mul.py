"""Product of two tensors in codes, one of which may be a gate `[N,C,1,1]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization, saturate

LEAST_MULTIPLIER, MOST_MULTIPLIER = 2.0**-16, 2.0**8  # XNNPACK, qs8 multiplication


@dataclass(frozen=True, kw_only=True)
class Mul(Operator):
    """`rne(f32((qa-za)*(qb-zb)) * M) + zo`, `M = f32(f32(sa*sb) / so)`."""

    reads: ClassVar[int | None] = 2

    def shape(self, *inputs: Shape) -> Shape:
        """That of the first input; the second has the same, or `[N,C,1,1]`."""
        left, right = inputs
        if right not in (left, (*left[:2], 1, 1)):
            raise InputError(f"`{self.name}` multiplies tensors of shapes {list(left)} and {list(right)}")
        return left

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,C,H,W]` and int8 of the same shape or `[N,C,1,1]`."""
        (a, b), (qa, qb) = codes, reads
        return multiply(a, b, qa, qb, out)

    def multiplier(self, qa: Quantization, qb: Quantization, out: Quantization) -> np.float32:
        """`M`."""
        return (qa.scale * qb.scale) / out.scale

    def least_scales(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[tuple[str, float]]:
        """The result's, and the first factor's, so that the multiplier is what XNNPACK takes."""
        qa, qb = reads
        yield self.name, float(qa.scale) * float(qb.scale) / MOST_MULTIPLIER
        yield self.inputs[0], float(out.scale) * LEAST_MULTIPLIER / float(qb.scale)

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """All 65,536 pairs of codes, under every rule."""
        qa, qb = reads
        yield Check(
            self.name,
            lambda: not disagreements(qa, qb, out),
            "no scale near it makes every runtime multiply all 65,536 code pairs alike",
        )


def multiply(a: Codes, b: Codes, qa: Quantization, qb: Quantization, out: Quantization) -> Codes:
    """`rne(f32((qa-za)*(qb-zb)) * M) + zo`: int8 of shapes that broadcast."""
    product = (a.astype(np.int32) - qa.zero_point) * (b.astype(np.int32) - qb.zero_point)
    multiplier = (qa.scale * qb.scale) / out.scale
    return saturate(np.rint(product.astype(np.float32) * multiplier) + out.zero_point)


def disagreements(qa: Quantization, qb: Quantization, out: Quantization) -> dict[str, int]:
    """Rules that differ from the golden one, and on how many of the 65,536 code pairs."""
    expected = multiply(*runtime_rules.code_pairs(), qa, qb, out)
    rules = runtime_rules.products(qa, qb, out)
    counts = {rule: int(np.count_nonzero(products != expected)) for rule, products in rules}
    return {rule: count for rule, count in counts.items() if count}
