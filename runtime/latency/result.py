"""The result of a benchmark as plain data, and as the JSON file that `result.schema.json` describes.

One file holds runs; a run is one machine. An emulated machine has instruction counts where a real one has
latencies: its time means nothing.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.parity import OutputParity

SCHEMA_VERSION = 2


class ResultError(InputError):
    """A file is not the result of a benchmark, or of another version."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its bootstrap interval of 95%."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Steady runs of one candidate.

    Attributes:
        p50_ms, p90_ms: with intervals over processes and over the queries in them.
        cv: standard deviation over mean.
        outliers: queries slower than the third quartile by more than three interquartile ranges; kept.
        warmup_queries: before the first sample, by process.
        steady: whether each warm-up ended because two windows agreed.
        samples_ms: every query, by process in the order of the rounds.
    """

    p50_ms: Interval
    p90_ms: Interval
    p99_ms: float
    mean_ms: float
    cv: float
    queries: int
    outliers: int
    warmup_queries: tuple[int, ...]
    steady: bool
    samples_ms: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Cold:
    """Fresh processes: from the artifact's bytes to a program that can run, and its first run."""

    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A process that only loads and runs: its resident set with the library imported, and at its peak."""

    rss_before_load_mib: float
    rss_peak_mib: float


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Instructions of one inference on an emulated CPU; repeats to 0.3%, and is no latency."""

    per_inference: float
    queries: int


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """Operators of one kind: how many run, and what of an inference they take."""

    kind: str
    count: int
    share: float
    mean_ms: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A traced run by kind of operator; `source` says what recorded it, or why nothing could."""

    source: str
    operators: tuple[OperatorTime, ...]


@dataclass(frozen=True, kw_only=True)
class Sustained:
    """Minutes of running without a pause: the median of each window, and the last against the first."""

    window_s: float
    p50_ms: tuple[float, ...]
    last_to_first: float


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What else went on while a process took its samples. A value the machine does not show is None.

    Attributes:
        round: 0 to the number of processes - 1.
        p50_ms: of the process.
        turns: queries of each turn that the process had; they stand one behind the other in `samples_ms`.
        cpu_ms: CPU time of a query, mean, where one thread runs: what waiting for a core does not change.
        cpu_share: CPU time over wall time of the timed loop, where one thread runs: less than 1 if it had to wait.
        other_cores: cores kept busy by everything else.
        yardstick_ms: a fixed piece of arithmetic, least of several, median over the turns: moves with the clock.
        frequency_mhz: highest of any core, after.
        throttle_events: of any core, during.
        temperature_c: after.
    """

    round: int
    p50_ms: float
    turns: tuple[int, ...]
    cpu_ms: float | None
    cpu_share: float | None
    other_cores: float | None
    yardstick_ms: float
    frequency_mhz: float | None
    throttle_events: int | None
    temperature_c: float | None


@dataclass(frozen=True, kw_only=True)
class Covered:
    """The coverage contract of an artifact, as its bundle has it: operators by type, and delegates."""

    int8: Mapping[str, int]
    floating: Mapping[str, int]
    boundary: Mapping[str, int]
    partitions: int


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """One candidate. Where `failure` says something, there is no number.

    Attributes:
        exact: it has to give the golden codes.
        parity_before, parity_after: of the worst process, by output; a peer's show how other a function it is.
        images: inputs of each parity pass.
        coverage: of an artifact of the bundle.
        failure: why there is no latency.
    """

    name: str
    library: str
    version: str
    artifact: str
    sha256: str
    size_bytes: int
    threads: int
    exact: bool
    description: str
    images: int = 0
    parity_before: Mapping[str, OutputParity] | None = None
    parity_after: Mapping[str, OutputParity] | None = None
    latency: Latency | None = None
    cold: Cold | None = None
    memory: Memory | None = None
    instructions: Instructions | None = None
    profile: Profile | None = None
    sustained: Sustained | None = None
    conditions: tuple[Conditions, ...] = ()
    coverage: Covered | None = None
    failure: str | None = None

    @property
    def key(self) -> str:
        """Unique in a run."""
        return f"{self.name}, {self.threads} thread{'s' if self.threads > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Latency of `numerator` over that of `denominator`: the median over pairs of turns, of the ratio of their medians.

    Where candidates did not alternate in turns, a process is one turn.

    Attributes:
        rounds: the same of each round.
        cpu_time: the same of mean CPU time, where one thread runs: holds on a loaded machine too, if less exactly.
    """

    numerator: str
    denominator: str
    ratio: Interval
    rounds: tuple[float, ...]
    cpu_time: float | None = None


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the machine's own facts leave out."""

    os: str
    python: str
    memory_mib: int | None
    cores: int
    usable_cores: tuple[int, ...]
    affinity: tuple[int, ...]
    load_1min_before: float | None
    load_1min_after: float | None
    versions: Mapping[str, str]
    git_revision: str | None


@dataclass(frozen=True, kw_only=True)
class Validity:
    """Whether the numbers can be trusted; if not, why, a sentence each.

    Attributes:
        valid: all of them can.
        reasons: why the latencies cannot.
        ratio_reasons: why the ratios cannot either: fewer, where candidates alternated in short turns.
        bounds: what was allowed.
    """

    valid: bool
    reasons: tuple[str, ...]
    ratio_reasons: tuple[str, ...]
    bounds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One machine."""

    machine: DeviceFacts
    environment: Environment
    validity: Validity
    candidates: tuple[CandidateResult, ...]
    ratios: tuple[Ratio, ...]

    @property
    def only_ratios_valid(self) -> bool:
        """Whether there are ratios to rely on, though not latencies."""
        return bool(self.ratios) and not self.validity.valid and not self.validity.ratio_reasons


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `stage2 bench` writes.

    Attributes:
        schema_version: of the file.
        created: ISO 8601, UTC.
        command: that made it.
        tier: `quick`, `standard` or `full`.
        golden_sha256: of the bundle's golden codes.
        weights: whose weights every candidate has.
        runs: one a machine.
    """

    schema_version: int
    created: str
    command: str
    tier: str
    golden_sha256: str
    weights: str
    runs: tuple[Run, ...]


def schema() -> dict[str, Any]:
    """The JSON Schema of a result file."""
    text = resources.files(__package__).joinpath("result.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultError: it is not one, or of another version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"{path} is not JSON ({error}): give files that `stage2 bench --json` wrote") from error
    version = values.get("schema_version") if isinstance(values, dict) else None
    if isinstance(version, int) and 0 < version < SCHEMA_VERSION and "runs" in values:
        raise ResultError(
            f"{path} is of schema version {version}, and this reads {SCHEMA_VERSION}: run the benchmark again"
        )
    if version != SCHEMA_VERSION or "runs" not in values:
        raise ResultError(
            f"{path} is not a benchmark result of schema version {SCHEMA_VERSION} (it says {version!r}): "
            "give files that `stage2 bench --json` wrote"
        )
    try:
        result: Result = _load(Result, values)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultError(f"{path} is damaged ({error!r}): run the benchmark again") from error
    return result


def _load(kind: Any, value: Any) -> Any:
    """`value`, from JSON, as a `kind`: a dataclass, tuple, mapping, optional or plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _load(arguments[0], value)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _load(hints[name], entry) for name, entry in value.items()})
    if origin is tuple:
        return tuple(_load(arguments[0], entry) for entry in value)
    if origin is not None:
        return {_load(arguments[0], key): _load(arguments[1], entry) for key, entry in value.items()}
    if kind in (int, float):
        return kind(value)
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
