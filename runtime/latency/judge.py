"""Judges whether a run can be trusted, by what was observed while it was taken, against stated bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median

from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.latency.result import CandidateResult, Conditions, Environment, Ratio, Validity

COOL = {"none", "nominal", "fair"}
"""Thermal states in which Android and macOS do not slow down."""

FEWEST_OF_DRIFT = 4
"""Processes of a candidate: its last two are held against its first two."""


@dataclass(frozen=True)
class Bounds:
    """What is still believed.

    Attributes:
        other_cores: kept busy by everything else, mean over the run.
        load_per_core: load average over cores, judged only where the machine does not show who used its cores.
        cpu_share: of a core that single-threaded candidates got, median over processes.
        frequency_change: of the clock, largest against smallest.
        yardstick_change: of the fixed arithmetic, likewise.
        spread: of a candidate's medians over its processes, largest against smallest.
        tail: of p90 against p50.
        drift: of the last processes' medians against the first ones', over all candidates.
        ratio_interval: width of a ratio's interval against the ratio.
    """

    other_cores: float = 0.25
    load_per_core: float = 0.7
    cpu_share: float = 0.97
    frequency_change: float = 0.05
    yardstick_change: float = 0.15
    spread: float = 0.15
    tail: float = 0.35
    drift: float = 0.05
    ratio_interval: float = 0.10


def judge(
    candidates: Sequence[CandidateResult],
    ratios: Sequence[Ratio],
    machine: DeviceFacts,
    environment: Environment,
    bounds: Bounds,
    *,
    in_turns: bool,
) -> Validity:
    """The verdict, with a sentence for each reason against, and the names of what could not be judged.

    Most of what slows a machine for a while is in both of a pair of short turns, though not by the same factor: a ratio
    is believed where its interval is narrow, and nobody else was at work. Where candidates alternated by processes
    (not `in_turns`), whatever speaks against the latencies speaks against the ratios. What an emulated machine counts
    depends on none of this.
    """
    if machine.emulated:
        return Validity(valid=True, reasons=(), ratio_reasons=(), unknown=(), bounds={})
    timed = [c for c in candidates if c.latency]
    conditions = [condition for c in timed for condition in c.conditions]
    of_both = [
        *_load(conditions, environment, bounds),
        *_throttling(conditions),
        *_warm_up(timed),
        *_precision(ratios, bounds),
        *([] if timed else ["nothing was timed"]),
    ]
    reasons = [*of_both, *_clock(conditions, bounds), *_spread(timed, bounds), *_drift(timed, bounds)]
    return Validity(
        valid=not reasons,
        reasons=tuple(reasons),
        ratio_reasons=tuple(of_both if in_turns else reasons),
        unknown=tuple(_unknown(timed, conditions, environment)),
        bounds=dataclasses.asdict(bounds),
    )


def _unknown(
    timed: Sequence[CandidateResult], conditions: Sequence[Conditions], environment: Environment
) -> Iterator[str]:
    """What no process could say: judged by nothing, so named."""
    shown = {
        "load": any(c.other_cores is not None for c in conditions) or _load_per_core(environment) is not None,
        "waiting for a core": any(c.cpu_share is not None for c in conditions),
        "clock": any(c.frequency_mhz is not None or c.yardstick_ms is not None for c in conditions),
        "throttling": any(c.throttle_events is not None or c.thermal is not None for c in conditions),
        "temperature": any(c.temperature_c is not None for c in conditions),
        "drift": any(len(c.conditions) >= FEWEST_OF_DRIFT for c in timed),
        "spread of processes": any(len(c.conditions) > 1 for c in timed),
    }
    yield from (name for name, known in shown.items() if not known)


def _load(conditions: Sequence[Conditions], environment: Environment, bounds: Bounds) -> Iterator[str]:
    others, load = _known(c.other_cores for c in conditions), _load_per_core(environment)
    if others:
        mean = sum(others) / len(others)
        if mean > bounds.other_cores:
            yield (
                f"the machine was loaded: other processes kept {mean:.2f} of {environment.cores} cores busy "
                f"(at most {bounds.other_cores:g} is trusted); stop them and run again"
            )
    elif load is not None and load > bounds.load_per_core:
        yield f"the machine was loaded: {load:.2f} per core (at most {bounds.load_per_core:g} is trusted)"
    shares = _known(c.cpu_share for c in conditions)
    if shares and median(shares) < bounds.cpu_share:
        yield (
            f"the candidates had to wait for a core: they got {median(shares):.0%} of one "
            f"(at least {bounds.cpu_share:.0%} is trusted)"
        )


def _load_per_core(environment: Environment) -> float | None:
    load, cores = environment.load_1min_after, environment.cores
    return load / cores if load is not None and cores else None


def _clock(conditions: Sequence[Conditions], bounds: Bounds) -> Iterator[str]:
    for what, values, bound in (
        ("the clock moved", _known(c.frequency_mhz for c in conditions), bounds.frequency_change),
        ("a fixed calculation varied", _known(c.yardstick_ms for c in conditions), bounds.yardstick_change),
    ):
        if values and (change := max(values) / min(values) - 1) > bound:
            yield f"{what} by {change:.0%} during the run (at most {bound:.0%} is trusted): fix the frequency"


def _throttling(conditions: Sequence[Conditions]) -> Iterator[str]:
    if throttled := sum(_known(c.throttle_events for c in conditions)):
        yield f"the processor throttled {throttled:.0f} times: let it cool, or use --tier quick"
    states = {c.thermal for c in conditions if c.thermal is not None}
    if hot := sorted(states - COOL):
        yield f"the system reports the thermal state {', '.join(hot)}: let it cool"


def _spread(timed: Sequence[CandidateResult], bounds: Bounds) -> Iterator[str]:
    """Says which candidate spreads most, or has the longest tail, where that is too much."""
    spreads, tails = {}, {}
    for c in timed:
        medians = [condition.p50_ms for condition in c.conditions]
        if medians:
            spreads[c.key] = max(medians) / min(medians) - 1
        if c.latency:
            tails[c.key] = c.latency.p90_ms.value / c.latency.p50_ms.value - 1
    for what, found, bound in (
        ("the medians of one candidate's processes spread by", spreads, bounds.spread),
        ("p90 lies above p50 by", tails, bounds.tail),
    ):
        beyond = [key for key, value in found.items() if value > bound]
        if beyond:
            worst = max(beyond, key=lambda key: found[key])
            yield (
                f"{what} {found[worst]:.0%} at worst ({worst}; {len(beyond)} of {len(found)} lie beyond the "
                f"{bound:.0%} that is trusted)"
            )


def _warm_up(timed: Sequence[CandidateResult]) -> Iterator[str]:
    if unsteady := [c.key for c in timed if c.latency and not c.latency.steady]:
        yield f"a warm-up never became steady ({', '.join(unsteady)})"


def _precision(ratios: Sequence[Ratio], bounds: Bounds) -> Iterator[str]:
    """Says which ratio has the widest interval, where one is too wide."""
    widths = {f"{r.numerator} / {r.denominator}": (r.ratio.high - r.ratio.low) / r.ratio.value for r in ratios}
    if beyond := [key for key, width in widths.items() if width > bounds.ratio_interval]:
        worst = max(beyond, key=lambda key: widths[key])
        yield (
            f"the interval of a ratio is {widths[worst]:.0%} wide at worst ({worst}; {len(beyond)} of {len(widths)} "
            f"lie beyond the {bounds.ratio_interval:.0%} that is trusted)"
        )


def _drift(timed: Sequence[CandidateResult], bounds: Bounds) -> Iterator[str]:
    """Each candidate's last two processes against its first two: a machine that warms up slows all of them."""
    changes = []
    for candidate in timed:
        medians = [c.p50_ms for c in sorted(candidate.conditions, key=lambda c: c.round)]
        if len(medians) >= FEWEST_OF_DRIFT:
            changes.append(geometric_mean(medians[-2:]) / geometric_mean(medians[:2]))
    if changes and abs(drift := geometric_mean(changes) - 1) > bounds.drift:
        yield (
            f"latencies drifted by {drift:+.0%} from the first to the last rounds "
            f"(at most {bounds.drift:.0%} is trusted)"
        )


def _known(values: Iterable[float | int | None]) -> list[float]:
    return [float(value) for value in values if value is not None]
