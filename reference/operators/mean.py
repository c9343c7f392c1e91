"""Mean over a whole map: an int32 sum and one float32 multiply. Every sum that there can be is checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization, saturate

MOST_CELLS = 2048
"""Of a map, in one step: for more, the float32 rules of the runtimes part."""


@dataclass(frozen=True, kw_only=True)
class Mean(Operator):
    """`rne(f32(sum (q - zx)) * M) + zo`, `M = f32(f32(sx/so) / cells)`: one value a channel.

    Attributes:
        cells: height times width of its input, at most 2,048.
    """

    cells: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.cells) is not int or not 1 <= self.cells <= MOST_CELLS:
            raise InputError(f"`cells` (={self.cells!r}) of `{self.name}` must lie in [1, {MOST_CELLS}]")

    def shape(self, *inputs: Shape) -> Shape:
        """`[N, C, 1, 1]`."""
        count, channels, height, width = inputs[0]
        if height * width != self.cells:
            raise InputError(f"`{self.name}` takes the mean of {self.cells} cells, but reads {height}x{width}")
        return count, channels, 1, 1

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 `[N,C,H,W]` -> int8 `[N,C,1,1]`."""
        return self._of_sums(codes[0].astype(np.int64).sum(axis=(2, 3), keepdims=True), reads[0], out)

    def multiplier(self, read: Quantization, out: Quantization) -> np.float32:
        """`M`."""
        return (read.scale / out.scale) / np.float32(self.cells)

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """Every sum from all codes lowest to all highest, under every rule."""
        yield Check(
            self.name,
            lambda: not self.disagreements(reads[0], out),
            "no scale near it makes every runtime take the mean of all sums alike",
        )

    def disagreements(self, read: Quantization, out: Quantization) -> dict[str, int]:
        """Rules that differ from the golden one, and on how many sums."""
        raw = np.arange(-128 * self.cells, 127 * self.cells + 1, dtype=np.int64)
        expected = self._of_sums(raw, read, out)
        rules = runtime_rules.means(raw, self.cells, read, out)
        counts = {rule: int(np.count_nonzero(found != expected)) for rule, found in rules}
        return {rule: count for rule, count in counts.items() if count}

    def _of_sums(self, raw: NDArray[np.int64], read: Quantization, out: Quantization) -> Codes:
        """The means of maps whose codes have these sums: int64 of any shape -> int8."""
        centred = raw - self.cells * read.zero_point
        return saturate(np.rint(centred.astype(np.float32) * self.multiplier(read, out)) + out.zero_point)
