"""Fidelity: how near a runtime that computes another function comes to the float network.

For the Neural Engine's float16 form codes mean nothing. It is held against the integer function: it may be
no worse, in signal to noise against the float network, by more than half a decibel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import RUNTIMES
from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Golden
from litehrnet_stage2.runtime.parity import sqnr_db
from litehrnet_stage2.runtime.program import Floats
from litehrnet_stage2.runtime.session import Session, SessionInfo

MOST_LOSS_DB = 0.5

OWN_FUNCTION = tuple(name for name, runtime in RUNTIMES.items() if not runtime.exact)
"""The runtimes that are judged this way: their artifact computes another function."""


@dataclass(frozen=True, kw_only=True)
class OutputFidelity:
    """One output against the float network's: its signal to noise, and that of the golden codes, in dB."""

    sqnr_db: float
    golden_sqnr_db: float

    @property
    def bound_db(self) -> float:
        """The least that passes."""
        return self.golden_sqnr_db - MOST_LOSS_DB

    @property
    def passed(self) -> bool:
        """Whether it is no worse than the golden codes by more than `MOST_LOSS_DB`."""
        return self.sqnr_db >= self.bound_db


@dataclass(frozen=True, kw_only=True)
class FidelityResult:
    """One runtime on the golden inputs that are photographs."""

    session: SessionInfo
    images: int
    outputs: Mapping[str, OutputFidelity]

    @property
    def passed(self) -> bool:
        """Whether every output passes."""
        return all(output.passed for output in self.outputs.values())


def check_fidelity(session: Session, golden: Golden) -> FidelityResult:
    """Run the photographs among the golden inputs and compare with the float network.

    Raises:
        ValueError: the bundle does not hold the float network's outputs.
    """
    images = photographs(golden)
    outputs = session.run(*(x[:images] for x in golden.real))
    return FidelityResult(
        session=session.info, images=images, outputs=compare_with_float(outputs, golden, session.info.outputs)
    )


def photographs(golden: Golden) -> int:
    """How many of the golden inputs have the float network's outputs: the first ones.

    Raises:
        ValueError: none has.
    """
    if not (count := min(map(len, golden.floats.values()), default=0)):
        raise InputError("the bundle holds no float outputs to compare with: convert the checkpoint again")
    return count


def golden_sqnr_db(golden: Golden, specs: Sequence[TensorSpec]) -> Mapping[str, float]:
    """Signal to noise of the golden codes against the float network, by output; empty where the latter is not known."""
    found = {}
    for spec in specs:
        if spec.name in golden.floats and len(golden.floats[spec.name]):
            wanted = golden.floats[spec.name].astype(np.float64)
            exact = spec.quantization.dequantize(golden.outputs[spec.name][: len(wanted)])
            found[spec.name] = sqnr_db(wanted, exact - wanted)
    return found


def compare_with_float(
    outputs: Sequence[Floats], golden: Golden, specs: Sequence[TensorSpec]
) -> Mapping[str, OutputFidelity]:
    """What outputs of the photographs, each float32 `[N,C,H,W]`, are worth; `specs` say what golden codes mean."""
    due = golden_sqnr_db(golden, specs)
    compared = {}
    for y, spec in zip(outputs, specs, strict=True):
        wanted = golden.floats[spec.name].astype(np.float64)
        compared[spec.name] = OutputFidelity(sqnr_db=sqnr_db(wanted, y - wanted), golden_sqnr_db=due[spec.name])
    return compared
