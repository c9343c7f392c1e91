"""Statistics and the verdict, on numbers whose answer is known."""

from __future__ import annotations

import os
import re
import time

import numpy as np
import pytest

from litehrnet_stage2.runtime.devices import DeviceFacts
from litehrnet_stage2.runtime.latency import Bounds, CandidateResult, intervals, judge, monitor
from litehrnet_stage2.runtime.latency.lanes.traces import by_kind
from litehrnet_stage2.runtime.latency.result import Conditions, Environment, Ratio

RNG = np.random.default_rng(0)
MACHINE = DeviceFacts(device="local", emulated=False, arch="x86_64")
QUIET = {
    "turns": (100,),
    "cpu_ms": 4.0,
    "cpu_share": 0.999,
    "other_cores": 0.02,
    "yardstick_ms": 0.6,
    "frequency_mhz": 2600.0,
    "throttle_events": 0,
    "temperature_c": 50.0,
}


def environment(load: float = 0.1) -> Environment:
    return Environment(
        os="Linux",
        python="3.11",
        memory_mib=1024,
        cores=2,
        usable_cores=(0, 1),
        affinity=(),
        load_1min_before=load,
        load_1min_after=load,
        versions={},
        git_revision=None,
    )


def candidate(*medians: float, steady: bool = True, tail: float = 1.1, **conditions: object) -> CandidateResult:
    processes = [np.r_[np.full(80, median), np.full(20, tail * median)] for median in medians]
    return CandidateResult(
        name="executorch",
        library="executorch",
        version="1",
        artifact="stage2.pte",
        sha256="0" * 64,
        size_bytes=1,
        threads=1,
        exact=True,
        baseline=False,
        floating=False,
        description="",
        latency=intervals.latency(processes, warmup_queries=[20] * len(processes), steady=steady),
        conditions=tuple(
            Conditions(round=i, p50_ms=median, **{**QUIET, **conditions})  # type: ignore[arg-type]
            for i, median in enumerate(medians)
        ),
    )


def reasons(*candidates: CandidateResult, load: float = 0.1, of_ratios: bool = False) -> tuple[str, ...]:
    """Against the latencies; where `of_ratios` is said, they have to be against the ratios too, else not."""
    verdict = judge(candidates, (), MACHINE, environment(load), Bounds(), in_turns=True)
    assert verdict.valid == (not verdict.reasons)
    assert verdict.ratio_reasons == (verdict.reasons if of_ratios else ())
    return verdict.reasons


def test_a_quiet_run_is_valid() -> None:
    assert reasons(candidate(4.0, 4.1, 4.0, 4.05, 4.0)) == ()


@pytest.mark.parametrize(
    ("changed", "of_ratios", "why"),
    [
        ({"other_cores": 0.9}, True, r"other processes kept 0\.90 of 2 cores busy \(at most 0\.25 is trusted\)"),
        ({"cpu_share": 0.6}, True, "had to wait for a core: they got 60% of one"),
        ({"throttle_events": 3}, True, "the processor throttled 15 times"),
        ({"steady": False}, True, "a warm-up never became steady"),
        ({"tail": 2.0}, False, "p90 lies above p50 by 100% at worst"),
        ({"other_cores": None, "load": 3.0}, True, r"loaded: 1\.50 per core"),
    ],
)
def test_each_bound_is_noticed_alone(changed: dict[str, object], of_ratios: bool, why: str) -> None:
    """What slows one candidate more than another is a reason against ratios too."""
    load = changed.pop("load", 0.1)
    one = candidate(4.0, 4.0, 4.0, 4.0, 4.0, **changed)  # type: ignore[arg-type]
    (reason,) = reasons(one, load=load, of_ratios=of_ratios)  # type: ignore[arg-type]
    assert re.search(why, reason), reason


def test_a_clock_that_moves_is_noticed() -> None:
    fast, slow = candidate(4.0, 4.0), candidate(4.0, 4.0, frequency_mhz=1800.0)
    (reason,) = reasons(fast, slow)
    assert "the clock moved by 44%" in reason
    (reason,) = reasons(fast, candidate(4.0, 4.0, yardstick_ms=0.9))
    assert "a fixed calculation varied by 50%" in reason


def test_processes_that_disagree_are_noticed() -> None:
    (reason,) = reasons(candidate(4.0, 4.0, 5.0, 4.0, 4.0))
    assert "the medians of one candidate's processes spread by 25% at worst" in reason


def test_drift_is_noticed_though_each_candidate_stays_within_its_spread() -> None:
    (reason,) = reasons(*(candidate(4.0, 4.1, 4.2, 4.35, 4.4) for _ in range(3)))
    assert "latencies drifted by +8%" in reason


def test_a_ratio_that_depends_on_the_machines_state_is_noticed() -> None:
    """One candidate that half of the rounds slow by a third, and another that they do not."""
    slow = [
        [RNG.normal(2.0, 0.02, 50) * (4 / 3 if process in (0, 3, 4) else 1) for _ in range(10)] for process in range(5)
    ]
    other = [[RNG.normal(4.0, 0.04, 50) for _ in range(10)] for _ in range(5)]
    interval, rounds = intervals.ratio(slow, other)
    ratio = Ratio(numerator="a", denominator="b", ratio=interval, rounds=rounds)
    verdict = judge([candidate(4.0, 4.0)], [ratio], MACHINE, environment(), Bounds(), in_turns=True)
    (reason,) = verdict.ratio_reasons
    assert re.search(r"the interval of a ratio is \d\d% wide at worst \(a / b; 1 of 1", reason)
    assert not verdict.valid


def test_nothing_timed_is_not_valid() -> None:
    assert reasons(of_ratios=True) == ("nothing was timed",)


def test_outliers_are_counted_and_kept() -> None:
    samples = np.r_[RNG.normal(4.0, 0.05, 200), 40.0, 50.0]
    latency = intervals.latency([samples], warmup_queries=[20], steady=True)
    assert latency.outliers == 2
    assert latency.queries == 202
    assert max(latency.samples_ms[0]) == 50.0
    assert latency.p50_ms.value == pytest.approx(4.0, rel=0.01)
    assert latency.mean_ms > 4.3


def test_intervals_of_the_median_cover_it_as_often_as_they_say() -> None:
    covered = 0
    for _ in range(24):
        processes = [RNG.normal(5.0 + shift, 0.2, 40) for shift in RNG.normal(0, 0.05, 5)]
        interval = intervals.percentile(processes, 50)
        covered += interval.low <= 5.0 <= interval.high
    assert covered >= 18  # of 23 expected; processes are few, so the interval is a little short


def test_a_ratio_is_taken_pair_by_pair() -> None:
    """A machine that slows down during the run, or for some turns, changes both of a pair and not their ratio."""
    slowdown = [[factor * (2 if turn == 3 else 1) for turn in range(10)] for factor in (1.0, 1.5, 2.0, 2.5, 3.0)]
    a = [[RNG.normal(2.0, 0.02, 50) * factor for factor in process] for process in slowdown]
    b = [[RNG.normal(4.0, 0.04, 50) * factor for factor in process] for process in slowdown]
    interval, rounds = intervals.ratio(a, b)
    assert interval.value == pytest.approx(0.5, abs=0.005)
    assert interval.high - interval.low < 0.01
    assert len(rounds) == 5


def test_a_few_pairs_that_the_machine_slowed_halfway_do_not_move_a_ratio() -> None:
    a = [[RNG.normal(2.0, 0.02, 50) * (1.3 if turn < 2 else 1) for turn in range(10)] for _ in range(5)]
    b = [[RNG.normal(4.0, 0.04, 50) for _ in range(10)] for _ in range(5)]
    interval, _ = intervals.ratio(a, b)
    assert interval.value == pytest.approx(0.5, abs=0.005)
    assert interval.high < 0.52


def test_a_profile_groups_operators_by_kind() -> None:
    events = [("conv 1", "Conv", 2.0), ("conv 2", "Conv", 1.0), ("silu", "Invalid Unary Op", 1.0)] * 3
    conv, silu = by_kind(events, 3)
    assert (conv.kind, conv.count, conv.ms) == ("Conv", 2, 3.0)
    assert (silu.kind, silu.count, silu.ms) == ("Table lookup (SiLU)", 1, 1.0)


def test_a_profile_does_not_move_when_the_machine_was_busy_for_a_few_runs() -> None:
    quiet = [("depthwise", "DWConv", 1.0), ("dense", "Conv", 3.0)] * 20
    busy = [("depthwise", "DWConv", 40.0), ("dense", "Conv", 3.5)] * 9
    depthwise = next(one for one in by_kind(quiet + busy, 29) if one.kind == "DWConv")
    assert depthwise.ms == 1.0


def test_the_monitor_does_not_take_its_own_work_for_that_of_others() -> None:
    with monitor.Monitor() as watch:
        assert sum(i * i for i in range(3_000_000))
    stretch = watch.stretch()
    assert stretch.own_cpu_s > 0
    if stretch.other_cores is not None:
        cores = os.cpu_count() or 1
        assert stretch.other_cores + stretch.own_cpu_s / stretch.wall_s <= cores + 0.3


def test_the_monitor_adds_up_what_it_watches_and_nothing_between() -> None:
    watch = monitor.Monitor()
    for _ in range(3):
        with watch:
            time.sleep(0.02)
        time.sleep(0.5)
    assert 0.06 <= watch.stretch().wall_s < 0.5
