"""Addition in codes: the one operator of Stage2 that each runtime rounds in its own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization, saturate

LEAST_RATIO, MOST_RATIO = 2.0**-10, 2.0**8  # XNNPACK, qs8 addition (MLAS on Arm: from 2^-14)


@dataclass(frozen=True, kw_only=True)
class Add(Operator):
    """`rne((sa/so)*(qa-za) + (sb/so)*(qb-zb)) + zo` of two tensors of equal shape."""

    reads: ClassVar[int | None] = 2

    def shape(self, *inputs: Shape) -> Shape:
        """That of either input."""
        left, right = inputs
        if left != right:
            raise InputError(f"`{self.name}` adds tensors of different shapes, {list(left)} and {list(right)}")
        return left

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 of any one shape."""
        (a, b), (qa, qb) = codes, reads
        return add(a, b, qa, qb, out)

    def least_scales(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[tuple[str, float]]:
        """Bounds a term that is minute beside the sum, and a sum in which the terms all but cancel."""
        for name in self.inputs:
            yield name, float(out.scale) * LEAST_RATIO
        yield self.name, max(float(q.scale) for q in reads) / MOST_RATIO

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """All 65,536 pairs of codes, under every rule."""
        qa, qb = reads
        yield Check(
            self.name,
            lambda: not disagreements(qa, qb, out),
            "no scale near it makes every runtime add all 65,536 code pairs alike",
        )


def add(a: Codes, b: Codes, qa: Quantization, qb: Quantization, out: Quantization) -> Codes:
    """`rne((sa/so)*(qa-za) + (sb/so)*(qb-zb)) + zo`: int8 of equal shapes."""
    scale = np.float64(out.scale)
    left = (qa.scale / scale) * (a.astype(np.int32) - qa.zero_point)
    right = (qb.scale / scale) * (b.astype(np.int32) - qb.zero_point)
    return saturate(np.rint(left + right) + out.zero_point)


def disagreements(qa: Quantization, qb: Quantization, out: Quantization) -> dict[str, int]:
    """Rules that differ from the golden one, and on how many of the 65,536 code pairs."""
    expected = add(*runtime_rules.code_pairs(), qa, qb, out)
    rules = runtime_rules.additions(qa, qb, out)
    counts = {rule: int(np.count_nonzero(sums != expected)) for rule, sums in rules}
    return {rule: count for rule, count in counts.items() if count}
