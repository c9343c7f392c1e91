"""Lanes: where candidates run. A process here that takes turns, a process on a device, a compute unit of a Mac.

To add one, write a class with the methods of `Lane`; `measure` does the rest: rounds, parity, statistics, the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.latency.plan import Candidate
from litehrnet_stage2.runtime.latency.result import (
    Conditions,
    Environment,
    Instructions,
    Memory,
    PlannedOperation,
    Sustained,
)
from litehrnet_stage2.runtime.latency.worth import Worth

Tell: TypeAlias = Callable[[str], None]
"""Told what takes long."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one process measured, after its first run.

    Attributes:
        after: what the outputs were worth after the timing.
        warmup_queries, steady: the warm-up's length, and whether two windows' medians agreed in the end.
        samples_ms: by turn; a lane without turns has one.
        turns_cpu_ms: CPU time of a query, mean, by turn; empty where it is not known.
        conditions: `round` is set by `measure`.
    """

    after: Worth
    warmup_queries: int
    steady: bool
    samples_ms: tuple[tuple[float, ...], ...]
    turns_cpu_ms: tuple[float, ...]
    conditions: Conditions


@dataclass(frozen=True, kw_only=True)
class ProcessReply:
    """What one process of a candidate gave. What its lane cannot know is None.

    Attributes:
        version: of the library.
        before: what the outputs were worth before any timing.
        load_ms, first_ms, compile_ms: of its start.
        timing: None if nothing was timed: the outputs were wrong, or time means nothing there.
        memory: of a process that is not timed apart for it.
        instructions: on an emulated machine.
        planned: by Core ML.
        affinity: cores the process was bound to.
    """

    version: str
    before: Worth
    load_ms: float | None = None
    first_ms: float | None = None
    compile_ms: float | None = None
    timing: Timing | None = None
    memory: Memory | None = None
    instructions: Instructions | None = None
    planned: tuple[PlannedOperation, ...] | None = None
    affinity: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A process that its library refused or that died: why, in a sentence."""

    why: str


@dataclass(frozen=True, kw_only=True)
class TracedOperators:
    """Operators of one kind in traced runs: how many there are, and what they take, by medians over the runs."""

    kind: str
    count: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Traced runs; `source` says what recorded them, or why nothing could."""

    source: str
    operators: tuple[TracedOperators, ...]


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What is taken of a candidate once, after the rounds, in processes that are not timed."""

    memory: Memory | None = None
    trace: Trace | None = None
    sustained: Sustained | None = None


class Lane(Protocol):
    """Where candidates run.

    Attributes:
        rounds: how many, each a fresh process of every candidate.
        in_turns: the candidates of a round alternate in short turns; where they do not, what slows the machine for a
            while need not slow all of them.
    """

    rounds: int
    in_turns: bool

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Check, before anything is timed, that the plan can be followed here.

        Raises:
            ValueError: it cannot.
        """

    def round(self, candidates: Sequence[Candidate], tell: Tell) -> Sequence[ProcessReply | Failed]:
        """One fresh process of each candidate, in this order."""

    def extras(self, candidate: Candidate, tell: Tell) -> Extras | Failed:
        """What is taken once."""

    def surroundings(self) -> tuple[DeviceFacts, Environment]:
        """The machine, asked when the rounds are over."""
