"""Assesses a candidate's outputs: their codes against the golden ones, their noise against the float network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.fidelity import compare_with_float
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.parity import OutputParity, compare
from litehrnet_stage2.runtime.program import Floats
from litehrnet_stage2.runtime.session import to_codes

MOST_DB = 300.0
"""Signal to noise of outputs that are equal: JSON has no infinity."""


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Outputs of the golden inputs.

    Attributes:
        images: how many inputs.
        parity: codes against the golden ones, by output; floats of a candidate that is not exact are put on the golden
            grid first.
        sqnr_db: signal to noise against the float network, by output; None where the bundle has no float outputs.
        least_sqnr_db: what it has to be, of a candidate that is judged by it.
    """

    images: int
    parity: Mapping[str, OutputParity]
    sqnr_db: Mapping[str, float] | None
    least_sqnr_db: Mapping[str, float] | None

    @property
    def mismatches(self) -> int:
        """Codes that are not the golden ones."""
        return sum(output.mismatches for output in self.parity.values())

    def failure(self, candidate: Candidate, moment: str) -> str | None:
        """Why a candidate with such outputs gets no number; `moment` says when they were taken."""
        if candidate.exact and self.mismatches:
            return f"{self.mismatches:,} codes differ from the golden ones {moment}: no number for it"
        for name, least in (self.least_sqnr_db or {}).items():
            found = (self.sqnr_db or {}).get(name, -np.inf)
            if found < least:
                return (
                    f"{name} has {found:.1f} dB of signal to noise against the float network {moment}, and needs "
                    f"{least:.1f}: no number for it"
                )
        return None


def assess(outputs: Sequence[Floats], bundle: Bundle, candidate: Candidate) -> Worth:
    """Judge outputs float32, each `[N,...]` of the first N golden inputs, in the order of the bundle's.

    Raises:
        OutputError: an exact candidate's outputs are not on the grid.
    """
    golden, specs = bundle.golden(), bundle.manifest.outputs
    parity = {}
    for spec, y in zip(specs, outputs, strict=True):
        codes = to_codes(y, spec) if candidate.exact else spec.quantization.quantize(y)
        parity[spec.name] = compare(codes, golden.outputs[spec.name][: len(codes)], zero_point=spec.zero_point)
    count = min(map(len, golden.floats.values()), default=0)
    fidelity = compare_with_float([y[:count] for y in outputs], golden, specs) if count else {}
    return Worth(
        images=len(outputs[0]),
        parity=parity,
        sqnr_db={name: min(output.sqnr_db, MOST_DB) for name, output in fidelity.items() if output.sqnr_db > -MOST_DB}
        or None,
        least_sqnr_db={name: output.bound_db for name, output in fidelity.items()} if candidate.fidelity else None,
    )
