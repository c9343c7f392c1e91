"""The lane of a Mac: a bundle's Core ML packages, a process for each on every set of compute units.

What has to be equal is an exact package on the CPU. Elsewhere Core ML may compute in float16, so there its codes are
counted and not judged; the Neural Engine's package has its fidelity judged everywhere.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.border import pixels
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.coreml.predict import UNITS, WORKER, Host, MacPrediction, PredictionError, predict
from litehrnet_stage2.runtime.devices.facts import CoreKind, DeviceFacts
from litehrnet_stage2.runtime.fidelity import photographs
from litehrnet_stage2.runtime.latency import environment
from litehrnet_stage2.runtime.latency.lanes import Extras, Failed, ProcessReply, Tell, Timing
from litehrnet_stage2.runtime.latency.plan import Candidate, Plan
from litehrnet_stage2.runtime.latency.result import Conditions, Environment
from litehrnet_stage2.runtime.latency.worth import assess

OWN = "coreml-ane"
TARGETS = {
    "coreml": "the integer function",
    "coreml-image": "the integer function, pixels as images",
    OWN: "the Neural Engine's form, in float16",
}
"""What is timed, and what it is."""


def mac_candidates(bundle: Bundle) -> list[Candidate]:
    """The bundle's Core ML packages, each on every set of compute units.

    Raises:
        ValueError: it has none.
    """
    targets = [target for target in TARGETS if target in bundle.manifest.artifacts]
    if not targets:
        raise InputError(f"{bundle.folder} has no Core ML package: convert again with `--targets coreml` added")
    return [
        Candidate(
            name=f"{target} on {unit}",
            library="coreml",
            path=str(bundle.folder / bundle.artifact(target)),
            sha256=bundle.sha256(bundle.artifact(target)),
            threads=None,
            exact=target != OWN and unit == "cpu",
            fidelity=target == OWN,
            unit=unit,
            border=bundle.manifest.artifacts[target].border,
            description=TARGETS[target],
            coverage=dataclasses.asdict(bundle.manifest.coverage[target]),
        )
        for target in targets
        for unit in UNITS
    ]


class MacLane:
    """Processes that ask Core ML. Use it in a `with` statement: it holds a private copy of the packages.

    Args:
        bundle: that has the packages.
        plan: without affinity and without minutes: Core ML binds to no core.
        worker: the command of the process that predicts.
    """

    in_turns = False

    def __init__(self, bundle: Bundle, plan: Plan, *, worker: Sequence[str] = WORKER) -> None:
        self._bundle, self._plan, self._worker = bundle, plan, worker
        self._folder = TemporaryDirectory(prefix="litehrnet-stage2-")
        self._load_before = environment.load_1min()
        self._host: Host | None = None
        self.rounds = plan.processes

    def __enter__(self) -> MacLane:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Copy the packages, their hashes checked.

        Raises:
            ValueError: the plan has affinity or minutes without a pause.
            BundleError: a package is not what the manifest says.
        """
        if self._plan.affinity or self._plan.sustained_min:
            raise InputError("Core ML binds to no core and is not run without a pause: leave both out")
        for name in {Path(candidate.path).name for candidate in candidates}:
            self._bundle.extract(name, Path(self._folder.name))

    def round(self, candidates: Sequence[Candidate], tell: Tell) -> Sequence[ProcessReply | Failed]:
        """A process of each, one after the other."""
        replies: list[ProcessReply | Failed] = []
        for candidate in candidates:
            tell(candidate.key)
            try:
                replies.append(self._reply(candidate))
            except PredictionError as error:
                replies.append(Failed(str(error)))
        return replies

    def extras(self, candidate: Candidate, tell: Tell) -> Extras:
        """Nothing: Core ML shows neither its memory nor the time of an operator."""
        return Extras()

    def surroundings(self) -> tuple[DeviceFacts, Environment]:
        """This Mac, as far as its processes said what it is."""
        machine = environment.machine()
        around = environment.environment(affinity=(), load_1min_before=self._load_before)
        if (host := self._host) is not None:
            cores = CoreKind(name=host.chip, part="", cores=tuple(range(os.cpu_count() or 1)))
            machine = dataclasses.replace(machine, soc=host.model, cores=(cores,))
            around = dataclasses.replace(around, os=f"macOS {host.macos} ({host.os_build})")
        return machine, around

    def _reply(self, candidate: Candidate) -> ProcessReply | Failed:
        assert candidate.unit is not None
        assert candidate.border is not None
        golden, specs = self._bundle.golden(), self._bundle.manifest.inputs
        count = photographs(golden) if candidate.fidelity else len(golden)  # float16 overflows on the others
        prediction = predict(
            Path(self._folder.name, Path(candidate.path).name),
            candidate.unit,
            {
                spec.name: (pixels(codes) if candidate.border.is_image(spec.kind) else real)[:count]
                for spec, codes, real in zip(specs, golden.inputs.values(), golden.real, strict=True)
            },
            list(golden.outputs),
            queries=self._plan.queries,
            seconds=self._plan.tier.seconds / self._plan.processes,
            worker=self._worker,
        )
        told = prediction.reply
        self._host = told.host
        before = assess(list(prediction.outputs.values()), self._bundle, candidate)
        reply = ProcessReply(
            version=told.host.coremltools,
            before=before,
            load_ms=told.load_ms,
            first_ms=told.first_ms,
            compile_ms=told.compile_ms,
            planned=told.plan,
        )
        if before.failure(candidate, "") is not None:
            return reply
        if not told.repeats:
            return Failed("its outputs changed while it was timed: no number for it")
        timing = Timing(
            after=before,  # the process itself compared them with those before
            warmup_queries=told.warmup_queries,
            steady=told.steady,
            samples_ms=(told.samples_ms,),
            turns_cpu_ms=(),
            conditions=_conditions(prediction),
        )
        return dataclasses.replace(reply, timing=timing)


def _conditions(prediction: MacPrediction) -> Conditions:
    samples = prediction.reply.samples_ms
    return Conditions(
        round=0,
        p50_ms=float(np.median(samples)),
        turns=(len(samples),),
        load_1min=environment.load_1min(),
        thermal=prediction.reply.thermal_after,
    )
