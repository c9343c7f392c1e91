"""A bundle's Core ML packages on a Mac: every set of compute units, its outputs checked and its time taken.

Each round is a fresh process for every package and set of units, in turn; the outputs of every process are
judged. What has to be equal is the exact package on the CPU. Elsewhere Core ML may compute in float16, so
there its codes are counted and not judged; the Neural Engine's package has its fidelity judged everywhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.integer_function import OUTPUTS, Quantization
from litehrnet_stage2.runtime.bundle import Bundle, Golden
from litehrnet_stage2.runtime.coreml.predict import (
    UNITS,
    WORKER,
    Host,
    PlannedOperation,
    Prediction,
    PredictionError,
    predict,
)
from litehrnet_stage2.runtime.fidelity import OutputFidelity, compare_with_float, photographs
from litehrnet_stage2.runtime.latency.plan import PROCESSES, TIERS
from litehrnet_stage2.runtime.latency.result import Latency
from litehrnet_stage2.runtime.latency.statistics import latency
from litehrnet_stage2.runtime.parity import OutputParity, compare

EXACT, OWN = "coreml", "coreml-ane"


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """One package on one set of compute units.

    Attributes:
        target: the converter that made the package, `coreml` or `coreml-ane`.
        unit: a key of `predict.UNITS`.
        failure: why there are no numbers, or None.
        parity: codes against the golden ones, of the exact package, from the process with most mismatches.
        fidelity: against the float network, of the Neural Engine's package, from the last process.
        repeats: whether every process gave the same outputs again after its timing.
        compile_ms, load_ms, first_ms: by process.
        latency: predictions after the warm-up; None if it failed.
        plan: Core ML's own, by operator; None where the system does not tell.
        thermal: the system's thermal state before and after each process.
    """

    target: str
    unit: str
    failure: str | None
    parity: Mapping[str, OutputParity] | None = None
    fidelity: Mapping[str, OutputFidelity] | None = None
    repeats: bool | None = None
    compile_ms: tuple[float, ...] = ()
    load_ms: tuple[float, ...] = ()
    first_ms: tuple[float, ...] = ()
    latency: Latency | None = None
    plan: tuple[PlannedOperation, ...] | None = None
    thermal: tuple[str, ...] = ()

    @property
    def wrong(self) -> bool:
        """Whether outputs that have to be right are not."""
        off = self.unit == "cpu" and any(output.mismatches for output in (self.parity or {}).values())
        return off or any(not output.passed for output in (self.fidelity or {}).values())


@dataclass(frozen=True, kw_only=True)
class MacResult:
    """A Mac's numbers; `host` is None if nothing could predict."""

    kind: str
    tier: str
    golden_sha256: str
    host: Host | None
    units: tuple[UnitResult, ...]


@dataclass
class _Running:
    """A package on a set of units, and what its processes gave so far."""

    target: str
    unit: str
    predictions: list[Prediction] = field(default_factory=list)
    parities: list[Mapping[str, OutputParity]] = field(default_factory=list)
    fidelity: Mapping[str, OutputFidelity] | None = None
    failure: str | None = None

    def result(self) -> UnitResult:
        """The summary; without numbers if a process failed."""
        if self.failure is not None or not self.predictions:
            return UnitResult(target=self.target, unit=self.unit, failure=self.failure)
        replies = [prediction.reply for prediction in self.predictions]
        return UnitResult(
            target=self.target,
            unit=self.unit,
            failure=None,
            parity=max(self.parities, key=lambda parity: sum(y.mismatches for y in parity.values()), default=None),
            fidelity=self.fidelity,
            repeats=all(reply.repeats for reply in replies),
            compile_ms=tuple(reply.compile_ms for reply in replies),
            load_ms=tuple(reply.load_ms for reply in replies),
            first_ms=tuple(reply.first_ms for reply in replies),
            latency=latency(
                [np.array(reply.samples_ms) for reply in replies],
                warmup_queries=[reply.warmup_queries for reply in replies],
                steady=all(reply.steady for reply in replies),
            ),
            plan=replies[-1].plan,
            thermal=tuple(state for reply in replies for state in (reply.thermal_before, reply.thermal_after)),
        )


def measure(
    bundle: Bundle,
    *,
    tier: str,
    processes: int = PROCESSES,
    worker: Sequence[str] = WORKER,
    progress: Callable[[str], None] = lambda step: None,
) -> MacResult:
    """Time each of the bundle's Core ML packages on every set of compute units.

    Raises:
        ValueError: an unknown tier, or a bundle without a Core ML package or without float outputs.
        BundleError: a package is not what the manifest says.
    """
    if tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}: the tiers are {', '.join(TIERS)}")
    targets = [target for target in (EXACT, OWN) if target in bundle.manifest.artifacts]
    if not targets:
        raise ValueError(f"{bundle.folder} has no Core ML package: convert again with `--targets coreml` added")
    golden = bundle.golden()
    running = [_Running(target, unit) for target in targets for unit in UNITS]
    with tempfile.TemporaryDirectory(prefix="litehrnet-stage2-") as folder:
        packages = {target: bundle.extract(bundle.artifact(target), Path(folder)) for target in targets}
        for round_index in range(processes):
            for one in running if round_index % 2 == 0 else reversed(running):
                if one.failure is None:
                    progress(f"round {round_index + 1} of {processes}: {one.target} on {one.unit}")
                    _run(one, bundle, golden, packages[one.target], tier, processes, worker)
    hosts = [prediction.reply.host for one in running for prediction in one.predictions]
    return MacResult(
        kind="coreml",
        tier=tier,
        golden_sha256=bundle.manifest.golden_sha256,
        host=hosts[0] if hosts else None,
        units=tuple(one.result() for one in running),
    )


def _run(
    one: _Running,
    bundle: Bundle,
    golden: Golden,
    package: Path,
    tier: str,
    processes: int,
    worker: Sequence[str],
) -> None:
    """One process, its outputs judged; a failure is kept where it happened."""
    features = golden.x if one.target == EXACT else golden.x[: photographs(golden)]
    queries, seconds = -(-TIERS[tier].queries // processes), TIERS[tier].seconds / processes
    try:
        prediction = predict(package, one.unit, features, queries=queries, seconds=seconds, worker=worker)
    except PredictionError as error:
        one.failure = str(error)
        return
    one.predictions.append(prediction)
    y1, y2 = (prediction.outputs[name] for name in OUTPUTS)
    specs = bundle.manifest.outputs
    if one.target == EXACT:
        one.parities.append(
            {
                name: compare(
                    Quantization(np.float32(spec.scale), spec.zero_point).quantize(y),
                    wanted,
                    zero_point=spec.zero_point,
                )
                for name, y, wanted, spec in zip(OUTPUTS, (y1, y2), (golden.y1, golden.y2), specs, strict=True)
            }
        )
    else:
        one.fidelity = compare_with_float((y1, y2), golden, specs)
