"""Watches what else the machine does during a stretch of time: other processes, the clock, throttling."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

_SYS = Path("/sys/devices/system/cpu")
_YARDSTICK = bytes(1 << 20)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What a `Monitor` saw: wall and own CPU seconds, and cores that others kept busy."""

    wall_s: float
    own_cpu_s: float
    other_cores: float | None
    throttle_events: int | None


class Monitor:
    """Watches inside of each `with`. Everything is system-wide but this process's own CPU time.

    Attributes:
        own_cpu_s: of this process, so far.
    """

    def __init__(self) -> None:
        self._wall_s = self.own_cpu_s = 0.0
        self._busy_s: float | None = 0.0
        self._throttles: float | None = 0

    def __enter__(self) -> Monitor:
        self._entered = busy_s(), throttle_count(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        busy, throttles, cpu_before, wall_before = self._entered
        self._wall_s += wall - wall_before
        self.own_cpu_s += cpu - cpu_before
        self._busy_s = _advanced(self._busy_s, busy, busy_s())
        self._throttles = _advanced(self._throttles, throttles, throttle_count())

    def stretch(self) -> Stretch:
        """Everything watched so far, as if it had been one stretch of time."""
        others = None if self._busy_s is None else max(0.0, (self._busy_s - self.own_cpu_s) / self._wall_s)
        return Stretch(
            wall_s=self._wall_s,
            own_cpu_s=self.own_cpu_s,
            other_cores=others,
            throttle_events=None if self._throttles is None else int(self._throttles),
        )


def yardstick_ms() -> float:
    """A fixed piece of arithmetic, least of seven: longer when the clock is slower, on machines that do not show it."""
    best = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        hashlib.sha256(_YARDSTICK).digest()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def frequency_mhz() -> float | None:
    """The highest current frequency of any core."""
    read = [_number(path) for path in _SYS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    return max((khz / 1000 for khz in read if khz is not None), default=None)


def temperature_c() -> float | None:
    """The hottest thermal zone."""
    read = [_number(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    return max((milli / 1000 for milli in read if milli is not None and milli >= 1000), default=None)


def throttle_count() -> int | None:
    """How often any core was throttled since it started."""
    read = [_number(path) for path in _SYS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    counts = [count for count in read if count is not None]
    return sum(counts) if counts else None


def busy_s() -> float | None:
    """CPU seconds of the whole machine that were not idle, and those its hypervisor took away."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _advanced(total: float | None, before: float | None, now: float | None) -> float | None:
    """A total and what was added to a counter, None where the system does not show it."""
    return None if total is None or before is None or now is None else total + now - before


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
