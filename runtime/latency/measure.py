"""The pipeline of every benchmark: rounds of fresh processes in a lane, what they say, statistics and the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency import intervals
from litehrnet_stage2.runtime.latency.judge import Bounds, judge
from litehrnet_stage2.runtime.latency.lanes import Extras, Failed, Lane, ProcessReply, Timing
from litehrnet_stage2.runtime.latency.lanes.local import LocalLane
from litehrnet_stage2.runtime.latency.plan import Candidate, Plan
from litehrnet_stage2.runtime.latency.result import (
    CandidateResult,
    Cold,
    Covered,
    Interval,
    Memory,
    OperatorTime,
    Profile,
    Ratio,
    Run,
)


def measure_here(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    plan: Plan,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> Run:
    """Time candidates on this machine against each other: `measure` in this machine's lane."""
    return measure(LocalLane(bundle, plan), candidates, progress=progress)


def measure(
    lane: Lane,
    candidates: Sequence[Candidate],
    *,
    bounds: Bounds | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Run:
    """Time candidates in a lane against each other, or count their instructions where time means nothing.

    A candidate that its library refuses or dies of, or whose outputs are not what they have to be, gets its reason
    under `failure` and no number.

    Raises:
        ValueError: the lane cannot do what is asked.
        BundleError: the bundle, or an artifact, is not what its manifest says.
        DeviceError: a device cannot be reached.
    """
    lane.check(candidates)
    running = [_Running(candidate) for candidate in candidates]
    for index in range(lane.rounds):
        order = [one for one in (running if index % 2 == 0 else reversed(running)) if one.failure is None]

        def tell(step: str, number: int = index + 1) -> None:
            progress(f"round {number} of {lane.rounds}: {step}")

        for one, reply in zip(order, lane.round([one.candidate for one in order], tell), strict=True):
            one.add(reply, index)
    for one in running:
        if one.failure is None:
            extras = lane.extras(one.candidate, progress)
            if isinstance(extras, Failed):
                one.failure = extras.why
            else:
                one.extras = extras
    progress("resampling")
    results, ratios = tuple(one.result() for one in running), tuple(_ratios(running))
    machine, around = lane.surroundings()
    return Run(
        machine=machine,
        environment=around,
        validity=judge(results, ratios, machine, around, bounds or Bounds(), in_turns=lane.in_turns),
        candidates=results,
        ratios=ratios,
    )


@dataclass
class _Running:
    """A candidate and what its processes said so far."""

    candidate: Candidate
    replies: list[ProcessReply] = field(default_factory=list)
    extras: Extras = field(default_factory=Extras)
    failure: str | None = None

    def add(self, reply: ProcessReply | Failed, index: int) -> None:
        """Take what one process said."""
        if isinstance(reply, Failed):
            self.failure = reply.why
            return
        timing = reply.timing
        if timing is not None:
            timing = dataclasses.replace(timing, conditions=dataclasses.replace(timing.conditions, round=index))
        self.replies.append(dataclasses.replace(reply, timing=timing))
        self.failure = reply.before.failure(self.candidate, "before timing")
        if self.failure is None and timing is not None:
            self.failure = timing.after.failure(self.candidate, "after timing")

    @property
    def timings(self) -> list[Timing]:
        """What was timed, by round."""
        return [reply.timing for reply in self.replies if reply.timing is not None]

    @property
    def turns(self) -> list[list[intervals.Samples]]:
        """Latencies in ms, by process and turn."""
        return [[np.array(turn) for turn in timing.samples_ms] for timing in self.timings]

    @property
    def per_inference(self) -> float | None:
        """Instructions, where they were counted."""
        counted = self.replies[0].instructions if self.replies else None
        return counted.per_inference if counted else None

    def result(self) -> CandidateResult:
        """What is known in the end."""
        candidate, replies, timings = self.candidate, self.replies, self.timings
        before = max((reply.before for reply in replies), key=lambda worth: worth.mismatches, default=None)
        after = max((timing.after for timing in timings), key=lambda worth: worth.mismatches, default=None)
        described = CandidateResult(
            name=candidate.name,
            library=candidate.library,
            version=replies[0].version if replies else "",
            artifact=Path(candidate.path).name,
            sha256=candidate.sha256,
            size_bytes=_size_bytes(Path(candidate.path)),
            threads=candidate.threads,
            exact=candidate.exact,
            baseline=candidate.baseline,
            floating=candidate.floating,
            description=candidate.description,
            coverage=Covered(**candidate.coverage) if candidate.coverage else None,
            failure=self.failure,
            images=before.images if before else 0,
            parity_before=before.parity if before else None,
            parity_after=after.parity if after else None,
            sqnr_db=before.sqnr_db if before else None,
            least_sqnr_db=before.least_sqnr_db if before else None,
        )
        if self.failure is not None:
            return described
        described = dataclasses.replace(
            described,
            instructions=replies[0].instructions,
            planned=replies[0].planned,
            memory=self.extras.memory or self._memory(),
            sustained=self.extras.sustained,
            cold=self._cold(),
        )
        if not timings:
            return described
        latency = intervals.latency(
            [np.concatenate(process) for process in self.turns],
            warmup_queries=[timing.warmup_queries for timing in timings],
            steady=all(timing.steady for timing in timings),
        )
        return dataclasses.replace(
            described,
            latency=latency,
            profile=self._profile(latency.p50_ms.value),
            conditions=tuple(timing.conditions for timing in timings),
        )

    def _cold(self) -> Cold | None:
        load, first, compiled = (
            tuple(ms for reply in self.replies if (ms := getattr(reply, name)) is not None)
            for name in ("load_ms", "first_ms", "compile_ms")
        )
        return Cold(load_ms=load, first_ms=first, compile_ms=compiled) if load and first else None

    def _memory(self) -> Memory | None:
        """The highest of those processes that said it."""
        known = [reply.memory for reply in self.replies if reply.memory is not None]
        return max(known, key=lambda memory: memory.rss_peak_mib or 0, default=None)

    def _profile(self, p50_ms: float) -> Profile | None:
        trace = self.extras.trace
        if trace is None:
            return None
        operators = (
            OperatorTime(kind=one.kind, count=one.count, ms=one.ms, share=one.ms / p50_ms) for one in trace.operators
        )
        return Profile(source=trace.source, operators=tuple(operators))


def _ratios(running: Sequence[_Running]) -> list[Ratio]:
    """Every artifact of the bundle against every baseline with as many threads: of latencies, or of instructions."""
    known = [one for one in running if one.failure is None]
    ratios = []
    for a in (one for one in known if not one.candidate.baseline):
        for b in (one for one in known if one.candidate.baseline and one.candidate.threads == a.candidate.threads):
            if a.timings and b.timings:
                interval, rounds = intervals.ratio(a.turns, b.turns)
            elif a.per_inference and b.per_inference:
                value = a.per_inference / b.per_inference
                interval, rounds = Interval(value=value, low=value, high=value), (value,)
            else:
                continue
            ratios.append(
                Ratio(
                    numerator=a.candidate.key,
                    denominator=b.candidate.key,
                    ratio=interval,
                    rounds=rounds,
                    cpu_time=_cpu_ratio(a, b),
                )
            )
    return ratios


def _cpu_ratio(a: _Running, b: _Running) -> float | None:
    """Median over pairs of turns of the ratio of mean CPU times."""
    pairs = [
        left / right
        for ours, theirs in zip(a.timings, b.timings, strict=True)
        for left, right in zip(ours.turns_cpu_ms, theirs.turns_cpu_ms, strict=True)
        if right
    ]
    return float(np.median(pairs)) if pairs else None


def _size_bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
