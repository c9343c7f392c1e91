"""The result of a benchmark as plain data: one file holds runs, a run is one machine.

An emulated machine has instruction counts where a real one has latencies: its time means nothing. What a machine does
not show is None, never a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from litehrnet_stage2.reference.contract.codec import FORMERLY
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.parity import OutputParity

PLAUSIBLE = 1e-5, 1e12
"""Where every time in ms, count of instructions and ratio lies."""

MEASURED_P50 = "the measured p50"
"""What the shares of a profile are of."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its bootstrap interval of 95%."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_positive("an estimate and its interval", (self.value, self.low, self.high))


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

    def __post_init__(self) -> None:
        _check_positive("a latency in ms", (ms for process in self.samples_ms for ms in process))
        if not self.samples_ms or not all(self.samples_ms):
            raise InputError("a process has no samples")


@dataclass(frozen=True, kw_only=True)
class Cold:
    """Fresh processes, each: from the artifact's bytes to a program that can run, and its first run.

    Attributes:
        compile_ms: of Core ML, before the load: as Xcode does when an app is built.
    """

    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    compile_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (self.load_ms and self.first_ms):
            raise InputError("there is no cold start in it")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """A process that only loads and runs: its resident set with the library imported, and at its peak."""

    rss_before_load_mib: float | None
    rss_peak_mib: float | None


@dataclass(frozen=True, kw_only=True)
class Instructions:
    """Instructions of one inference on an emulated CPU; repeats to 0.3%, and is no latency."""

    per_inference: float
    queries: int

    def __post_init__(self) -> None:
        _check_positive("`per_inference`", (self.per_inference,))


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """Operators of one kind: how many run, how long they take in an inference, and what share that is."""

    kind: str
    count: int
    ms: float
    share: float

    def __post_init__(self) -> None:
        if self.share < 0:
            raise InputError(f"`share` (={self.share}) is negative")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Traced runs by kind of operator.

    Attributes:
        source: what recorded it, or why nothing could.
        operators: the most expensive first.
        share_of: what the shares are of; `MEASURED_P50`, where `ms` are medians over the traced runs.
    """

    source: str
    operators: tuple[OperatorTime, ...]
    share_of: str = MEASURED_P50


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
        load_1min: load average, after.
        thermal: the system's own word for its thermal state, after: `none` to `shutdown` of Android, `nominal` to
            `critical` of macOS.
    """

    round: int
    p50_ms: float
    turns: tuple[int, ...]
    cpu_ms: float | None = None
    cpu_share: float | None = None
    other_cores: float | None = None
    yardstick_ms: float | None = None
    frequency_mhz: float | None = None
    throttle_events: int | None = None
    temperature_c: float | None = None
    load_1min: float | None = None
    thermal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Covered:
    """The coverage contract of an artifact, as its bundle has it: operators by type, and delegates."""

    int8: Mapping[str, int]
    floating: Mapping[str, int]
    boundary: Mapping[str, int]
    partitions: int


@dataclass(frozen=True, kw_only=True)
class PlannedOperation:
    """What Core ML plans for an operator, before it runs: an estimate, no measurement.

    Attributes:
        operator: as the compiled program names it, e.g. `ios17.conv`.
        output: the tensor it makes.
        preferred: `cpu`, `gpu` or `ne`; None where Core ML does not say.
        supported: those that could run it.
        cost: its share of the work, 0 to 1; None where Core ML does not say.
    """

    operator: str
    output: str
    preferred: str | None
    supported: tuple[str, ...]
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class CandidateResult:
    """One candidate. Where `failure` says something, there is no number.

    Attributes:
        sha256: of the artifact.
        threads: of the library; None where nobody chooses them.
        exact: it has to give the golden codes.
        baseline: made by others of the same weights, to be compared with.
        floating: it computes in float32 throughout.
        images: inputs of each parity pass.
        parity_before, parity_after: codes against the golden ones, of the worst process, by output; those of a
            candidate that is not exact show how other a function it is.
        sqnr_db: signal to noise of each output against the float network, on the inputs whose float outputs the bundle
            has; None where it has none.
        least_sqnr_db: what `sqnr_db` has to reach, of an artifact that is judged by it.
        planned: Core ML's own plan; None where there is none, or the system does not tell.
        coverage: of an artifact of the bundle.
        failure: why there is no number.
    """

    name: str
    library: str
    version: str
    artifact: str
    sha256: str
    size_bytes: int
    threads: int | None
    exact: bool
    baseline: bool = field(metadata={FORMERLY: "peer"})  # until schema 4
    floating: bool
    description: str
    images: int = 0
    parity_before: Mapping[str, OutputParity] | None = None
    parity_after: Mapping[str, OutputParity] | None = None
    sqnr_db: Mapping[str, float] | None = None
    least_sqnr_db: Mapping[str, float] | None = None
    latency: Latency | None = None
    cold: Cold | None = None
    memory: Memory | None = None
    instructions: Instructions | None = None
    profile: Profile | None = None
    sustained: Sustained | None = None
    planned: tuple[PlannedOperation, ...] | None = None
    conditions: tuple[Conditions, ...] = ()
    coverage: Covered | None = None
    failure: str | None = None

    def __post_init__(self) -> None:
        for moment in (self.parity_before, self.parity_after):
            for name, output in (moment or {}).items():
                if not 0 <= output.mismatches <= output.compared or min(output.histogram.values(), default=0) < 0:
                    raise InputError(f"{output.mismatches} of {output.compared} codes of {name} differ")
                if self.exact and output.mismatches and self.failure is None:
                    raise InputError(f"{output.mismatches:,} codes of {name} differ, and no `failure` says so")
        if self.failure is not None and (self.latency or self.instructions):
            raise InputError(f"it failed ({self.failure}) and has a number")

    @property
    def key(self) -> str:
        """Unique in a run."""
        return candidate_key(self.name, self.threads)

    @property
    def parity(self) -> Mapping[str, OutputParity]:
        """The last one known."""
        return self.parity_after or self.parity_before or {}


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Latency of `numerator` over that of `denominator`: the median over pairs of turns, of the ratio of their medians.

    Where candidates did not alternate in turns, a process is one turn. On an emulated machine: of instructions.

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
        valid: all of them can, as far as was seen.
        reasons: why the latencies cannot.
        ratio_reasons: why the ratios cannot either: fewer, where candidates alternated in short turns.
        unknown: what could not be judged, because the machine does not show it.
        bounds: what was allowed.
    """

    valid: bool
    reasons: tuple[str, ...]
    ratio_reasons: tuple[str, ...]
    unknown: tuple[str, ...]
    bounds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One machine."""

    machine: DeviceFacts
    environment: Environment
    validity: Validity
    candidates: tuple[CandidateResult, ...]
    ratios: tuple[Ratio, ...]

    def __post_init__(self) -> None:
        if self.machine.emulated and any(candidate.latency for candidate in self.candidates):
            raise InputError("an emulated machine has a latency, which means nothing")
        keys = [candidate.key for candidate in self.candidates]
        if len(set(keys)) < len(keys):
            raise InputError("two candidates have the same name and threads")

    @property
    def processor(self) -> str:
        """What every ratio of this run holds for."""
        return ", ".join(kind.name for kind in self.machine.cores) or self.machine.arch

    @property
    def only_ratios_valid(self) -> bool:
        """Whether there are ratios to rely on, though not latencies."""
        return bool(self.ratios) and not self.validity.valid and not self.validity.ratio_reasons


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `stage2 bench` writes.

    Attributes:
        schema_version: of the file, `major.minor`.
        created: ISO 8601, UTC.
        command: that made it.
        tier: `quick`, `standard` or `full`.
        golden_sha256: of the bundle's golden codes.
        weights: whose weights every candidate has.
        runs: one a machine.
    """

    schema_version: str
    created: str
    command: str
    tier: str
    golden_sha256: str
    weights: str
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError("it holds no run")


def candidate_key(name: str, threads: int | None) -> str:
    """What tells a candidate from others, for people."""
    return name if threads is None else f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _check_positive(what: str, values: Iterable[float]) -> None:
    low, high = PLAUSIBLE
    for value in values:
        if not low <= value <= high:
            raise InputError(f"{what} (={value}) must lie in [{low:g}, {high:g}]")
