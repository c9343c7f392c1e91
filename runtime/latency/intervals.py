"""Percentiles with intervals, and ratios pair by pair.

Queries of one process resemble each other more than those of two, so intervals resample processes first
and what is within them, queries or pairs of turns, second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.runtime.latency.result import Interval, Latency

Samples = NDArray[np.float64]

RESAMPLES = 1000
OUTLIER_FENCE = 3.0  # interquartile ranges above the third quartile


def latency(processes: Sequence[Samples], *, warmup_queries: Sequence[int], steady: bool) -> Latency:
    """Summary of one candidate's queries, in ms, by process; each process has at least one."""
    pooled = np.concatenate(processes)
    low, high = np.percentile(pooled, [25, 75])
    return Latency(
        p50_ms=percentile(processes, 50),
        p90_ms=percentile(processes, 90),
        p99_ms=float(np.percentile(pooled, 99)),
        mean_ms=float(pooled.mean()),
        cv=float(pooled.std() / pooled.mean()),
        queries=len(pooled),
        outliers=int(np.count_nonzero(pooled > high + OUTLIER_FENCE * (high - low))),
        warmup_queries=tuple(warmup_queries),
        steady=steady,
        samples_ms=tuple(tuple(np.round(samples, 4).tolist()) for samples in processes),
    )


def percentile(processes: Sequence[Samples], q: float) -> Interval:
    """A percentile of all queries, with its interval."""

    def estimate(rng: np.random.Generator) -> float:
        drawn = [processes[i] for i in rng.integers(len(processes), size=len(processes))]
        return float(np.percentile(np.concatenate([_resample(samples, rng) for samples in drawn]), q))

    return _interval(float(np.percentile(np.concatenate(processes), q)), estimate)


def ratio(
    numerator: Sequence[Sequence[Samples]], denominator: Sequence[Sequence[Samples]]
) -> tuple[Interval, tuple[float, ...]]:
    """How two candidates compare, from their queries by process and turn.

    The turns of a round alternate, so most of what slows the machine for a while is in both of a pair. The estimate
    is the median over all pairs; the second value is the median over each round's.

    Raises:
        ValueError: the candidates have different numbers of processes or turns.
    """
    rounds = [
        np.array([np.median(a) / np.median(b) for a, b in zip(*pair, strict=True)])
        for pair in zip(numerator, denominator, strict=True)
    ]

    def estimate(rng: np.random.Generator) -> float:
        drawn = (rounds[i] for i in rng.integers(len(rounds), size=len(rounds)))
        return float(np.median(np.concatenate([_resample(pairs, rng) for pairs in drawn])))

    return _interval(float(np.median(np.concatenate(rounds))), estimate), tuple(float(np.median(r)) for r in rounds)


def _resample(samples: Samples, rng: np.random.Generator) -> Samples:
    return samples[rng.integers(len(samples), size=len(samples))]


def _interval(value: float, estimate: Callable[[np.random.Generator], float]) -> Interval:
    rng = np.random.default_rng(0)
    low, high = np.percentile([estimate(rng) for _ in range(RESAMPLES)], [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))
