"""Parity: the codes of a runtime against the golden ones, all of them, and what differs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.border import quantize
from litehrnet_stage2.runtime.bundle import Golden
from litehrnet_stage2.runtime.program import Array
from litehrnet_stage2.runtime.session import Session, SessionInfo

if TYPE_CHECKING:
    from litehrnet_stage2.runtime.devices import DeviceFacts


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """One output of a runtime against the golden codes.

    Attributes:
        compared: how many codes.
        mismatches: how many of them differ.
        max_lsb: the largest difference, in quantisation steps.
        histogram: how many codes are off by how many steps, the equal ones under 0.
        sqnr_db: signal to noise of the dequantised output against golden; None where they are equal or golden is zero.
    """

    compared: int
    mismatches: int
    max_lsb: int
    histogram: Mapping[int, int]
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class FlipRate:
    """What snapping off-grid inputs to the grid hides: inputs that lie so near a tie that a runtime's own
    quantiser (`x * (1/s)` instead of `x / s`) takes the other code.

    Attributes:
        off_grid: how many input values did not lie on the grid, of `inputs`.
        outputs: how many output codes differ when the inputs are given unsnapped, of `compared`.
    """

    off_grid: int
    inputs: int
    outputs: int
    compared: int


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """One runtime on one set of inputs.

    Attributes:
        session: what ran.
        images: how many inputs.
        outputs: by output name.
        codes_sha256: of the runtime's codes, each output in order.
        golden_sha256: of the expected ones.
        flips: the unsnapped inputs, where any lay off the grid.
        device: what it ran on, where that is not this process.
    """

    session: SessionInfo
    images: int
    outputs: Mapping[str, OutputParity]
    codes_sha256: str
    golden_sha256: str
    flips: FlipRate | None = None
    device: DeviceFacts | None = None

    @property
    def passed(self) -> bool:
        """Whether every code is equal."""
        return all(output.mismatches == 0 for output in self.outputs.values())


def expected(function: IntegerFunction, *inputs: Array) -> Golden:
    """The golden codes of inputs float32 or, of pixels, uint8 `[N,C,H,W]`, snapped to the grids of the function's.

    Raises:
        InputError: they have another shape.
    """
    specs, _ = border_specs(function)
    codes = {}
    for x, spec in zip(inputs, specs, strict=True):
        if x.ndim != 4 or x.shape[1:] != spec.shape[1:] or not len(x):
            due = ",".join(map(str, spec.shape[1:]))
            raise InputError(f"{spec.name} must have shape [N,{due}], N >= 1, but have {list(x.shape)}")
        codes[spec.name] = quantize(x, spec)
    return Golden(codes, golden.evaluate(function, *codes.values()), {spec.name: spec.quantization for spec in specs})


def check_parity(session: Session, due: Golden, *, unsnapped: Sequence[Array] = ()) -> ParityResult:
    """Run the golden inputs and compare; `unsnapped` are the same inputs before they were put on the grid.

    Raises:
        ValueError: the inputs do not fit the artifact.
        OutputError: the runtime's outputs are not on the output grid.
    """
    found = session.run_codes(*due.real)
    specs = session.info.outputs
    return ParityResult(
        session=session.info,
        images=len(due),
        outputs={
            spec.name: compare(codes, due.outputs[spec.name], zero_point=spec.zero_point)
            for spec, codes in zip(specs, found, strict=True)
        },
        codes_sha256=golden.codes_sha256(*found),
        golden_sha256=golden.codes_sha256(*(due.outputs[spec.name] for spec in specs)),
        flips=_flips(session, due, unsnapped),
    )


def compare(found: Codes, wanted: Codes, *, zero_point: int) -> OutputParity:
    """Compare codes of equal shape."""
    difference = found.astype(np.int64) - wanted.astype(np.int64)
    steps, counts = np.unique(difference, return_counts=True)
    mismatches = int(np.count_nonzero(difference))
    signal = wanted.astype(np.float64) - zero_point
    return OutputParity(
        compared=difference.size,
        mismatches=mismatches,
        max_lsb=int(np.abs(difference).max(initial=0)),
        histogram={int(step): int(count) for step, count in zip(steps, counts, strict=True)},
        sqnr_db=sqnr_db(signal, difference) if mismatches and signal.any() else None,
    )


def sqnr_db(signal: NDArray[np.floating], noise: NDArray[np.generic]) -> float:
    """Signal to quantisation-noise ratio in dB; infinite where there is no noise, or no signal."""
    powers = (float(np.square(array.astype(np.float64)).sum()) for array in (signal, noise))
    with np.errstate(divide="ignore"):
        of_signal, of_noise = (10 * float(np.log10(power)) for power in powers)
    return math.inf if of_noise == -math.inf else of_signal - of_noise


def _flips(session: Session, due: Golden, unsnapped: Sequence[Array]) -> FlipRate | None:
    floats = [(x, snapped) for x, snapped in zip(unsnapped, due.real, strict=False) if x.dtype != np.uint8]
    off_grid = sum(int(np.count_nonzero(x != snapped)) for x, snapped in floats)
    if not off_grid:
        return None
    found = session.run_codes(*unsnapped)
    return FlipRate(
        off_grid=off_grid,
        inputs=sum(x.size for x in unsnapped),
        outputs=sum(int(np.count_nonzero(a != b)) for a, b in zip(found, due.outputs.values(), strict=True)),
        compared=sum(codes.size for codes in found),
    )
