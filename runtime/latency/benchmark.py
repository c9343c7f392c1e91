"""The benchmark: rounds of fresh processes, one of every candidate, that take short turns in a round."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from litehrnet_stage2.reference.errors import InputError, Stage2Error
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency import environment, plan, statistics
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.latency.process import WorkerProcess, worker_process
from litehrnet_stage2.runtime.latency.result import (
    CandidateResult,
    Cold,
    Conditions,
    Covered,
    Memory,
    OperatorTime,
    Profile,
    Ratio,
    Run,
    Sustained,
)
from litehrnet_stage2.runtime.latency.validity import Bounds, judge
from litehrnet_stage2.runtime.latency.worker import Request
from litehrnet_stage2.runtime.parity import OutputParity

WORKER_LONGEST_S = 600.0
"""A process that takes longer for a reply is ended."""


class BenchmarkError(Stage2Error):
    """A worker process that had to answer ended without."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run.

    Attributes:
        tier: how much is enough.
        affinity: cores every candidate stays on; empty for all.
        sustained_min: minutes without a pause for each candidate after the timing; 0 for none.
        processes: rounds, each a fresh process of every candidate.
    """

    tier: plan.Tier = plan.TIERS["standard"]
    affinity: tuple[int, ...] = ()
    sustained_min: float = 0.0
    processes: int = plan.PROCESSES

    def __post_init__(self) -> None:
        usable = environment.usable_cores()
        if outside := sorted(set(self.affinity) - set(usable)):
            have = ", ".join(map(str, usable)) or "none: this system cannot bind processes"
            raise InputError(f"core {outside[0]} is not one this process may use (those are: {have})")
        if not 0 <= self.sustained_min < 24 * 60:
            raise InputError(f"`sustained_min` (={self.sustained_min}) must lie in [0, 1440) minutes")

    @property
    def turns(self) -> int:
        """Of each process: about `plan.TURN_S` long."""
        return max(1, round(self.tier.seconds / self.processes / plan.TURN_S))


def run_benchmark(
    bundle: Bundle,
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    bounds: Bounds | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Run:
    """Time candidates on this machine against each other.

    A candidate that its library refuses or dies of, or that has to give the golden codes and does not, gets its reason
    under `failure` and no number.

    Raises:
        BenchmarkError: a candidate that could be timed could not be run for its memory or profile.
        BundleError: the bundle is not what its manifest says.
    """
    load_before = environment.load_1min()
    running = [_Running(candidate) for candidate in candidates]
    for round_index in range(settings.processes):
        forward = round_index % 2 == 0
        order = [one for one in (running if forward else reversed(running)) if one.failure is None]
        with contextlib.ExitStack() as ending:
            workers = []
            for one in order:
                progress(f"round {round_index + 1} of {settings.processes}: {one.candidate.key}")
                workers.append(ending.enter_context(_start(bundle, "time", one.candidate, settings)))
            progress(f"round {round_index + 1} of {settings.processes}: {settings.turns} turns of each")
            for turn in range(settings.turns):
                for worker in workers if turn % 2 == 0 else reversed(workers):
                    worker.turn()
            for one, worker in zip(order, workers, strict=True):
                one.add(worker.answer(), round_index)
    for one in running:
        if one.failure is None:
            progress(f"memory and profile: {one.candidate.key}")
            one.memory = Memory(**_ask(bundle, "memory", one.candidate, settings))
            one.profile = _profile(_ask(bundle, "profile", one.candidate, settings))
            if settings.sustained_min:
                progress(f"{settings.sustained_min:g} min without a pause: {one.candidate.key}")
                answer = _ask(bundle, "sustain", one.candidate, settings)
                one.sustained = Sustained(**{**answer, "p50_ms": tuple(answer["p50_ms"])})
    progress("resampling")
    results, ratios = tuple(one.result() for one in running), tuple(_ratios(running))
    machine = environment.machine()
    around = environment.environment(affinity=settings.affinity, load_1min_before=load_before)
    return Run(
        machine=machine,
        environment=around,
        validity=judge(results, ratios, machine, around, bounds or Bounds()),
        candidates=results,
        ratios=ratios,
    )


@dataclass
class _Running:
    """A candidate and the answers so far."""

    candidate: Candidate
    answers: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[Conditions] = field(default_factory=list)
    failure: str | None = None
    memory: Memory | None = None
    profile: Profile | None = None
    sustained: Sustained | None = None

    def add(self, answer: dict[str, Any], round_index: int) -> None:
        """Take one process's answer."""
        if "error" in answer:
            self.failure = answer["error"]
            return
        self.answers.append(answer)
        for moment in ("before", "after"):
            wrong = sum(o["mismatches"] for o in answer.get(f"parity_{moment}", {}).values())
            if self.candidate.exact and wrong:
                self.failure = f"{wrong:,} codes differ from the golden ones {moment} timing: no number for it"
                return
        names = {f.name for f in dataclasses.fields(Conditions)}
        observed = {name: value for name, value in answer.items() if name in names and name != "turns"}
        p50_ms = float(np.median(np.concatenate(answer["samples_ms"])))
        turns = tuple(answer["turns"])
        self.conditions.append(Conditions(round=round_index, p50_ms=p50_ms, turns=turns, **observed))

    @property
    def turns(self) -> list[list[statistics.Samples]]:
        """Latencies in ms, by process and turn."""
        return [[np.array(turn) for turn in answer["samples_ms"]] for answer in self.answers]

    def result(self) -> CandidateResult:
        """What is known in the end."""
        described = CandidateResult(
            name=self.candidate.name,
            library=self.candidate.library,
            version=self.answers[0]["version"] if self.answers else "",
            artifact=Path(self.candidate.path).name,
            sha256=self.candidate.sha256,
            size_bytes=Path(self.candidate.path).stat().st_size,
            threads=self.candidate.threads,
            exact=self.candidate.exact,
            description=self.candidate.description,
            coverage=Covered(**self.candidate.coverage) if self.candidate.coverage else None,
            failure=self.failure,
            images=self.answers[0]["images"] if self.answers else 0,
            parity_before=_worst([answer["parity_before"] for answer in self.answers]),
            parity_after=_worst([a["parity_after"] for a in self.answers if "parity_after" in a]),
        )
        if self.failure is not None:
            return described
        return dataclasses.replace(
            described,
            latency=statistics.latency(
                [np.concatenate(process) for process in self.turns],
                warmup_queries=[answer["warmup_queries"] for answer in self.answers],
                steady=all(answer["steady"] for answer in self.answers),
            ),
            cold=Cold(
                load_ms=tuple(answer["load_ms"] for answer in self.answers),
                first_ms=tuple(answer["first_ms"] for answer in self.answers),
            ),
            memory=self.memory,
            profile=self.profile,
            sustained=self.sustained,
            conditions=tuple(self.conditions),
        )


def _ratios(running: Sequence[_Running]) -> list[Ratio]:
    """Every artifact of the bundle against every peer with as many threads."""
    timed = [one for one in running if one.failure is None]
    ratios = []
    for a in timed:
        for b in timed:
            if a.candidate.exact and not b.candidate.exact and a.candidate.threads == b.candidate.threads:
                interval, rounds = statistics.ratio(a.turns, b.turns)
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
        for ours, theirs in zip(a.answers, b.answers, strict=True)
        for left, right in zip(ours["turns_cpu_ms"], theirs["turns_cpu_ms"], strict=True)
        if right
    ]
    return float(np.median(pairs)) if pairs else None


def _worst(parities: Sequence[dict[str, Any]]) -> dict[str, OutputParity] | None:
    """The parity of the process with most mismatches."""
    if not parities:
        return None
    worst = max(parities, key=lambda parity: sum(output["mismatches"] for output in parity.values()))
    return {
        name: OutputParity(**{**output, "histogram": {int(k): n for k, n in output["histogram"].items()}})
        for name, output in worst.items()
    }


def _profile(answer: dict[str, Any]) -> Profile:
    operators = tuple(OperatorTime(**operator) for operator in answer["operators"])
    return Profile(source=answer["source"], operators=operators)


def _ask(bundle: Bundle, mode: str, candidate: Candidate, settings: Settings) -> dict[str, Any]:
    with _start(bundle, mode, candidate, settings) as worker:
        answer = worker.answer()
    if "error" in answer:
        raise BenchmarkError(f"{candidate.key} ran when timed, but not for `{mode}`: {answer['error']}")
    return answer


def _start(
    bundle: Bundle, mode: str, candidate: Candidate, settings: Settings
) -> contextlib.AbstractContextManager[WorkerProcess]:
    tier, sustained_s = settings.tier, settings.sustained_min * 60
    pieces = settings.processes * settings.turns
    request = Request(
        mode=mode,
        candidate=candidate,
        bundle=str(bundle.folder),
        queries=-(-tier.queries // pieces),
        seconds=sustained_s if mode == "sustain" else tier.seconds / pieces,
        affinity=settings.affinity,
    )
    return worker_process(request, longest_s=WORKER_LONGEST_S + sustained_s)
