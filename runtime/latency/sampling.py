"""The clock around a program: samples of a run, and the warm-up before them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from litehrnet_stage2.runtime.latency import plan


def samples_ms(run: Callable[[], Any], *, queries: int, seconds: float) -> list[float]:
    """Time of each run in ms, until there are enough and they took long enough."""
    clock = time.perf_counter_ns
    samples: list[float] = []
    end = clock() + int(seconds * 1e9)
    while len(samples) < queries or clock() < end:
        start = clock()
        run()
        samples.append((clock() - start) / 1e6)
    return samples


def warm_up(run: Callable[[], Any]) -> tuple[int, bool]:
    """Run until two windows' medians agree; how many runs that took, and whether they ever did."""
    previous, count, end = 0.0, 0, time.perf_counter() + plan.WARMUP_LONGEST_S
    while time.perf_counter() < end or count < 2 * plan.WARMUP_LEAST:
        median = float(np.median(samples_ms(run, queries=plan.WARMUP_LEAST, seconds=0)))
        count += plan.WARMUP_LEAST
        if agree(previous, median):
            return count, True
        previous = median
    return count, False


def agree(previous: float, last: float) -> bool:
    """Whether two windows of a warm-up have the same median."""
    return abs(last - previous) <= plan.WARMUP_AGREEMENT * last


def elapsed_ms(start_ns: int) -> float:
    """Since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - start_ns) / 1e6
