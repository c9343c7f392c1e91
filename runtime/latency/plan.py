"""What is timed, for how long, and how: candidates, tiers, a plan, and the rules of the warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litehrnet_stage2.reference.contract.artifacts import Border
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.latency.result import candidate_key

PROCESSES = 5
"""Fresh processes of each candidate: as many cold starts."""

TURN_S = 0.2
"""A turn of a candidate: short against what slows a machine for a while, so that it slows all of them."""

REST_S = 0.1
"""After a turn of several threads: a pool of them spins on for some 40 ms, on cores that are the next candidate's."""

WARMUP_LEAST = 10
"""Runs of the warm-up at least; also the size of the windows whose medians are compared."""

WARMUP_AGREEMENT = 0.02
"""The warm-up ends when two windows' medians agree this well."""

WARMUP_LONGEST_S = 2.0
"""The warm-up ends here even if they never do, and says so."""

MEMORY_QUERIES = 20
"""Runs of the process that only loads and runs, whose resident peak is the memory reported."""

PROFILE_QUERIES = 30
"""Traced runs; the trace slows a run down, so its times are no latencies."""

COUNTED_QUERIES = 4
"""Inferences whose instructions are counted on an emulated machine."""


@dataclass(frozen=True)
class Tier:
    """How many queries a candidate gets at least, and for how long, over all of its processes."""

    name: str
    queries: int
    seconds: float


TIERS = {tier.name: tier for tier in (Tier("quick", 64, 6), Tier("standard", 128, 10), Tier("full", 1024, 60))}


def tier_named(name: str) -> Tier:
    """A tier by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TIERS:
        raise InputError(f"unknown tier {name!r}: the tiers are {', '.join(TIERS)}")
    return TIERS[name]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to measure.

    Attributes:
        tier: how much is enough.
        affinity: cores every candidate stays on; empty for all.
        sustained_min: minutes without a pause for each candidate after the timing; 0 for none.
        processes: rounds, each a fresh process of every candidate.

    Raises:
        ValueError: `sustained_min` out of its range.
    """

    tier: Tier = TIERS["standard"]
    affinity: tuple[int, ...] = ()
    sustained_min: float = 0.0
    processes: int = PROCESSES

    def __post_init__(self) -> None:
        if not 0 <= self.sustained_min < 24 * 60:
            raise InputError(f"`sustained_min` (={self.sustained_min}) must lie in [0, 1440) minutes")

    @property
    def turns(self) -> int:
        """How many turns each process has, where candidates take turns: about `TURN_S` long."""
        return max(1, round(self.tier.seconds / self.processes / TURN_S))

    @property
    def queries(self) -> int:
        """How many queries each process makes at least, where it takes no turns."""
        return -(-self.tier.queries // self.processes)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One artifact, in one library, with so many threads.

    Attributes:
        name: shown to people, e.g. `executorch` or `fp32 .onnx`.
        library: a key of `program.LIBRARIES`.
        path: the file, or the folder of a Core ML package.
        sha256: of it, checked before it is opened.
        threads: of the library; None where nobody chooses them.
        exact: it has to give the golden codes.
        baseline: made by others of the same weights, to be compared with.
        floating: it computes in float32 throughout.
        fidelity: it has to come as near to the float network as the golden codes do, but for `MOST_LOSS_DB`.
        border: how an artifact of the bundle takes its inputs; None for a baseline, which is fed float32.
        unit: a key of Core ML's `UNITS`, on a Mac.
        description: what it is, in a sentence.
        coverage: its coverage contract, of an artifact of the bundle.
    """

    name: str
    library: str
    path: str
    sha256: str
    threads: int | None
    exact: bool
    baseline: bool = False
    floating: bool = False
    fidelity: bool = False
    border: Border | None = None
    unit: str | None = None
    description: str = ""
    coverage: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Unique in a run."""
        return candidate_key(self.name, self.threads)
