"""The benchmark on another machine: latency where time is real, instructions per inference where it is emulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import LIBRARIES
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.manifest import BundleError, FileEntry
from litehrnet_stage2.runtime.bundle import Bundle, Golden
from litehrnet_stage2.runtime.devices import Device, DeviceError, EmulatedDevice, NativeRun
from litehrnet_stage2.runtime.devices.session import DeviceProgram
from litehrnet_stage2.runtime.latency import plan, statistics
from litehrnet_stage2.runtime.latency.benchmark import Settings
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.latency.result import (
    CandidateResult,
    Cold,
    Covered,
    Environment,
    Instructions,
    Interval,
    Memory,
    Ratio,
    Run,
    Validity,
)
from litehrnet_stage2.runtime.latency.validity import Bounds, judge
from litehrnet_stage2.runtime.parity import OutputParity, compare
from litehrnet_stage2.runtime.program import CODES_FORMATS, CodesProgram, Program
from litehrnet_stage2.runtime.session import to_codes

COUNTED_QUERIES = 4
WARMUP_QUERIES = 4 * plan.WARMUP_LEAST


def run_on_device(
    bundle: Bundle,
    device: Device,
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Run:
    """Time candidates on a device, or count their instructions on an emulated one; parity comes first.

    Raises:
        ValueError: several threads, or affinity, on an emulated device.
        BundleError: an artifact is not what its manifest says.
        DeviceError: the device cannot be reached or lacks a tool.
    """
    if settings.sustained_min:
        raise InputError("--sustained runs on this machine alone: leave it out for a device")
    if device.emulated and (settings.affinity or any(c.threads != 1 for c in candidates)):
        raise InputError("an emulated device counts the instructions of one thread: leave out --threads and --affinity")
    golden, facts = bundle.golden(), device.facts()
    running = [_Running(bundle, device, candidate, golden) for candidate in candidates]
    if isinstance(device, EmulatedDevice):
        for one in running:
            progress(f"parity and instructions on {device.name}: {one.candidate.name}")
            one.count(device)
    else:
        for index in range(settings.processes):
            for one in running if index % 2 == 0 else reversed(running):
                if one.failure is None:
                    progress(f"round {index + 1} of {settings.processes} on {device.name}: {one.candidate.key}")
                    one.time(settings)
    results, ratios = tuple(one.result() for one in running), tuple(_ratios(running))
    after = device.facts()
    around = Environment(
        os=facts.kernel,
        python="",
        memory_mib=None,
        cores=sum(len(kind.cores) for kind in facts.cores),
        usable_cores=(),
        affinity=settings.affinity,
        load_1min_before=facts.load_1min,
        load_1min_after=after.load_1min,
        versions={one.candidate.library: one.version for one in running if one.version},
        git_revision=None,
    )
    verdict = Validity(valid=True, reasons=(), ratio_reasons=(), bounds={})
    if not device.emulated:
        verdict = judge(results, ratios, after, around, Bounds())
        # Here candidates alternate by processes, which a machine that changes its speed need not slow alike.
        verdict = dataclasses.replace(verdict, ratio_reasons=verdict.reasons)
    return Run(machine=after, environment=around, validity=verdict, candidates=results, ratios=ratios)


@dataclass
class _Running:
    """A candidate on the device, and what it gave so far."""

    bundle: Bundle
    device: Device
    candidate: Candidate
    golden: Golden
    runs: list[NativeRun] = field(default_factory=list)
    parity: dict[str, OutputParity] | None = None
    instructions: Instructions | None = None
    version: str = ""
    failure: str | None = None

    def __post_init__(self) -> None:
        path, candidate = Path(self.candidate.path), self.candidate
        if not LIBRARIES[candidate.library].on_devices:
            self.failure = f"devices do not run {candidate.library}"
        elif FileEntry.of(path.read_bytes()).sha256 != candidate.sha256:
            raise BundleError(f"{path} was changed since it was made: convert or build it again")
        self._inner = DeviceProgram(self.device, candidate.library, path, threads=candidate.threads)
        self._program: Program = self._inner
        if candidate.codes:
            specs = self.bundle.manifest.input, self.bundle.manifest.outputs
            self._program = CodesProgram(self._inner, *specs, CODES_FORMATS[candidate.codes])

    def count(self, device: EmulatedDevice) -> None:
        """Check parity and count instructions."""
        if self.failure is None:
            try:
                images = self.golden.x if self.candidate.exact else self.golden.x[:1]
                self._take(self._inner.measure(self._program.prepare(images), {}))
                if self.failure is None:
                    counted = device.count_instructions(
                        self.candidate.library,
                        Path(self.candidate.path),
                        self._program.prepare(self.golden.x[:1]),
                        queries=COUNTED_QUERIES,
                    )
                    self.instructions = Instructions(per_inference=counted.per_inference, queries=counted.queries)
            except DeviceError as error:
                self.failure = str(error)

    def time(self, settings: Settings) -> None:
        """One process: parity, warm-up, queries, parity."""
        try:
            self._take(
                self._inner.measure(
                    self._program.prepare(self.golden.x),
                    {
                        "warmup": WARMUP_QUERIES,
                        "iterations": -(-settings.tier.queries // settings.processes),
                        "affinity": settings.affinity or None,
                    },
                )
            )
        except DeviceError as error:
            self.failure = str(error)

    def _take(self, run: NativeRun) -> None:
        self.version = run.runtime.rpartition(" ")[2]
        found = self._program.finish((run.outputs[0], run.outputs[1]))
        if self.candidate.exact:
            wanted = (self.golden.y1, self.golden.y2)
            self.parity = {
                spec.name: compare(to_codes(y, spec), codes, zero_point=spec.zero_point)
                for spec, y, codes in zip(self.bundle.manifest.outputs, found, wanted, strict=True)
            }
            wrong = sum(output.mismatches for output in self.parity.values())
            if wrong:
                self.failure = f"{wrong:,} codes differ from the golden ones: no number for it"
            elif not run.outputs_repeat:
                self.failure = "its outputs changed while it was timed: no number for it"
        if self.failure is None:
            self.runs.append(run)

    @property
    def samples(self) -> list[statistics.Samples]:
        """Latencies in ms, by process."""
        return [np.array(run.query_ns) / 1e6 for run in self.runs]

    def result(self) -> CandidateResult:
        """What is known in the end."""
        candidate = self.candidate
        described = CandidateResult(
            name=candidate.name,
            library=candidate.library,
            version=self.version,
            artifact=Path(candidate.path).name,
            sha256=candidate.sha256,
            size_bytes=Path(candidate.path).stat().st_size,
            threads=candidate.threads,
            exact=candidate.exact,
            description=candidate.description,
            images=len(self.golden.x) if candidate.exact else 0,
            parity_before=self.parity,
            parity_after=None if self.device.emulated else self.parity,
            instructions=self.instructions,
            coverage=Covered(**candidate.coverage) if candidate.coverage else None,
            failure=self.failure,
        )
        if self.failure is not None or self.device.emulated:
            return described
        peak = max(run.rss_peak_mib or 0.0 for run in self.runs)
        return dataclasses.replace(
            described,
            latency=statistics.latency(
                self.samples, warmup_queries=[len(run.warmup_ns) for run in self.runs], steady=self._steady()
            ),
            cold=Cold(
                load_ms=tuple(run.load_ms or 0.0 for run in self.runs),
                first_ms=tuple(run.first_ms or 0.0 for run in self.runs),
            ),
            memory=Memory(rss_before_load_mib=0.0, rss_peak_mib=peak),
        )

    def _steady(self) -> bool:
        """Whether the medians of each warm-up's last two windows agree."""
        medians = [
            np.median(np.array(run.warmup_ns[-2 * plan.WARMUP_LEAST :]).reshape(2, -1), axis=1) for run in self.runs
        ]
        return all(abs(last / previous - 1) <= plan.WARMUP_AGREEMENT for previous, last in medians)


def _ratios(running: Sequence[_Running]) -> list[Ratio]:
    """Every artifact of the bundle against every peer: of latencies, or of instructions."""
    ratios = []
    for a in running:
        for b in running:
            if a.candidate.exact and not b.candidate.exact and a.candidate.threads == b.candidate.threads:
                if a.failure or b.failure:
                    continue
                if a.instructions and b.instructions:
                    value = a.instructions.per_inference / b.instructions.per_inference
                    interval = Interval(value=value, low=value, high=value)
                    rounds: tuple[float, ...] = (value,)
                else:
                    interval, rounds = statistics.ratio([[p] for p in a.samples], [[p] for p in b.samples])
                ratios.append(
                    Ratio(
                        numerator=a.candidate.key,
                        denominator=b.candidate.key,
                        ratio=interval,
                        rounds=rounds,
                        cpu_time=None,
                    )
                )
    return ratios
