"""What is timed and for how long: candidates, tiers, and the rules of the warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litehrnet_stage2.reference.errors import InputError

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
"""Traced runs; the trace slows a run down, so its times are shares, not latencies."""


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
class Candidate:
    """One artifact, in one library, with so many threads.

    Attributes:
        name: shown to people, e.g. `executorch int8` or `fp32 .onnx`.
        library: a key of `program.LIBRARIES`.
        path: the file.
        sha256: of the file, checked before it is opened.
        threads: of the library.
        exact: an artifact of the bundle, which has to give the golden codes; a peer gives what it gives.
        codes: a key of `program.CODES_FORMATS` where the artifact takes and gives codes, None where floats.
        description: what it is, in a sentence.
        coverage: its coverage contract, of an artifact of the bundle.
    """

    name: str
    library: str
    path: str
    sha256: str
    threads: int
    exact: bool
    codes: str | None = None
    description: str = ""
    coverage: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Unique in a run."""
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"
