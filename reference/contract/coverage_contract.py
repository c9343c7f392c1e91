"""The coverage contract: what of the function an artifact runs in int8, counted, and checked at conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from litehrnet_stage2.reference.errors import InputError, Stage2Error


class CoverageError(Stage2Error):
    """A converter left an operator in float, or outside of its delegate, that the contract has in int8."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Operators of an artifact by type.

    Attributes:
        int8: read and write int8 codes.
        floating: compute in float, between their own quantise and dequantise.
        boundary: quantise and dequantise where features enter and outputs leave.
        partitions: delegate calls, or 1 for a format that has none.
    """

    int8: Mapping[str, int]
    floating: Mapping[str, int]
    boundary: Mapping[str, int]
    partitions: int

    def __post_init__(self) -> None:
        if odd := [kind for kind in (*self.int8, *self.floating, *self.boundary) if not kind.isprintable()]:
            raise InputError(f"{odd[0]!a:.60} is no operator")

    def check(self, expected: Coverage, target: str) -> Coverage:
        """Return self if it is as expected.

        Raises:
            CoverageError: a count differs; the message names it and both values.
        """
        for field in ("int8", "floating", "boundary"):
            found, due = getattr(self, field), getattr(expected, field)
            for operator in sorted({*found, *due}):
                if (have := found.get(operator, 0)) != (want := due.get(operator, 0)):
                    raise CoverageError(
                        f"{target}: {have} {operator} under `{field}`, where the contract has {want}: "
                        "the exporter changed, or lost an operator; the artifact was not written"
                    )
        if self.partitions != expected.partitions:
            raise CoverageError(f"{target}: {self.partitions} partitions, where the contract has {expected.partitions}")
        return self
