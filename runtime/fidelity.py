"""Fidelity: how near a runtime that computes another function comes to the float network.

For the Neural Engine's float16 form codes mean nothing. It is held against the integer function: it may be
no worse, in signal to noise against the float network, by more than half a decibel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from litehrnet_stage2.reference.integer_function import OUTPUTS, Quantization
from litehrnet_stage2.runtime.bundle import Golden
from litehrnet_stage2.runtime.parity import sqnr_db
from litehrnet_stage2.runtime.session import Session, SessionInfo

MOST_LOSS_DB = 0.5


@dataclass(frozen=True, kw_only=True)
class OutputFidelity:
    """One output against the float network's: its signal to noise, and that of the golden codes, in dB."""

    sqnr_db: float
    golden_sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class FidelityResult:
    """One runtime on the golden inputs that are photographs."""

    session: SessionInfo
    images: int
    outputs: Mapping[str, OutputFidelity]

    @property
    def passed(self) -> bool:
        """Whether no output is worse than the golden codes by more than `MOST_LOSS_DB`."""
        return all(y.sqnr_db >= y.golden_sqnr_db - MOST_LOSS_DB for y in self.outputs.values())


def check_fidelity(session: Session, golden: Golden) -> FidelityResult:
    """Run the photographs among the golden inputs and compare with the float network.

    Raises:
        ValueError: the bundle does not hold the float network's outputs.
    """
    images = len(golden.float_y1)
    if not images:
        raise ValueError("the bundle holds no float outputs to compare with: convert the checkpoint again")
    outputs = {}
    ideals, codes = (golden.float_y1, golden.float_y2), (golden.y1, golden.y2)
    for name, y, ideal, q, spec in zip(
        OUTPUTS, session.run(golden.x[:images]), ideals, codes, session.info.outputs, strict=True
    ):
        wanted = ideal.astype(np.float64)
        exact = Quantization(np.float32(spec.scale), spec.zero_point).dequantize(q[:images])
        outputs[name] = OutputFidelity(
            sqnr_db=sqnr_db(wanted, y - wanted), golden_sqnr_db=sqnr_db(wanted, exact - wanted)
        )
    return FidelityResult(session=session.info, images=images, outputs=outputs)
