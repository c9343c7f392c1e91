"""What becomes of a page's report: a result marked `web`, and a verdict on its times."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency import SCHEMA_VERSION, Result, Run, read_result
from litehrnet_stage2.runtime.web import GoldenCodes, Model, vendor
from litehrnet_stage2.runtime.web.answer import answer
from litehrnet_stage2.runtime.web.browser import browser
from litehrnet_stage2.runtime.web.browser_run import check, measured
from litehrnet_stage2.runtime.web.protocol import ModelTimes, Report, Turn
from litehrnet_stage2.runtime.web.visits import Visit

ANDROID = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile "
    "Safari/537.36"
)
MODELS = {
    name: Model(
        name=name, file_name="stage2.onnx", content=b"onnx", sha256="0" * 64, exact=exact, description="a model"
    )
    for name, exact in (("web", True), ("web-fp32", False))
}


@pytest.fixture(scope="module")
def codes(small_bundle: Path) -> GoldenCodes:
    return GoldenCodes.of(Bundle.open(small_bundle))


def visit(codes: GoldenCodes, *, wrong_after: int = 0) -> Visit:
    """A page whose codes are right, but for the second pass."""
    made = Visit("a" * 16, ANDROID, 0.0)
    for which, wrong in (("before", 0), ("after", wrong_after)):
        for name in MODELS:
            for index in range(codes.images):
                found = [wanted[index].copy() for wanted in codes.wanted]
                found[0].ravel()[:wrong] ^= 1
                made.compared.setdefault((which, name), {})[index] = codes.compare_one(index, found)
    return made


def times(ms: float, *, spread: float = 0.01, drift: float = 0.0, steady: bool = True, turns: int = 32) -> ModelTimes:
    rng = np.random.default_rng(0)
    means = ms * (1 + spread * rng.standard_normal(turns) + drift * np.linspace(0, 1, turns))
    return ModelTimes(
        load_ms=100.0,
        first_ms=2 * ms,
        warmup_queries=20,
        steady=steady,
        turns=tuple(Turn(10, 10 * float(mean)) for mean in means),
    )


def report(**changes: object) -> Report:
    given = {
        "device": "Pixel 8",
        "cores": 9,
        "isolated": False,
        "clock_step_ms": 0.1,
        "hidden": False,
        "timed": True,
        "models": {"web": times(30.0), "web-fp32": times(34.0)},
        "failure": None,
    }
    return Report(**(given | changes))  # type: ignore[arg-type]


def run_of(codes: GoldenCodes, *, wrong_after: int = 0, **changes: object) -> Run:
    return measured(visit(codes, wrong_after=wrong_after), report(**changes), codes, MODELS)


def test_every_name_in_it_says_web(codes: GoldenCodes) -> None:
    run = run_of(codes)
    assert run.machine.device == "web: Pixel 8"
    assert run.machine.arch == "WebAssembly in Chrome 130 on Android 14"
    assert [c.name for c in run.candidates] == ["web", "web-fp32"]
    assert all("web" in name for ratio in run.ratios for name in (ratio.numerator, ratio.denominator))
    assert {c.library for c in run.candidates} == {"onnxruntime-web"}


def test_quiet_times_are_believed_and_what_a_browser_hides_is_unknown(codes: GoldenCodes) -> None:
    run = run_of(codes)
    assert run.validity.valid, run.validity.reasons
    (ratio,) = run.ratios
    assert ratio.ratio.value == pytest.approx(30 / 34, rel=0.02)
    assert ratio.cpu_time is None
    assert run.machine.temperature_c is None
    assert run.machine.governor is None
    assert {"temperature", "throttling", "clock", "load"} <= set(run.validity.unknown)
    assert run.candidates[0].latency is not None
    assert run.candidates[0].latency.queries == 32  # a sample is the mean of a turn


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden": True}, "out of sight"),
        ({"clock_step_ms": 16.7}, "clock steps by 16.7 ms"),
        (
            {"models": {"web": times(30.0, steady=False), "web-fp32": times(34.0)}},
            "never became steady (web",
        ),
        ({"models": {"web": times(30.0, drift=0.3), "web-fp32": times(34.0, drift=0.3)}}, "drifted by +"),
        ({"models": {"web": times(30.0, spread=0.4), "web-fp32": times(34.0)}}, "interval of a ratio is"),
    ],
)
def test_what_speaks_against_times_makes_them_invalid(
    codes: GoldenCodes, changes: dict[str, object], reason: str
) -> None:
    validity = run_of(codes, **changes).validity
    assert not validity.valid
    assert any(reason in why for why in validity.reasons), validity.reasons


def test_a_phone_that_slows_down_has_ratios_to_rely_on(codes: GoldenCodes) -> None:
    run = run_of(codes, models={"web": times(30.0, drift=0.3), "web-fp32": times(34.0, drift=0.3)})
    assert run.only_ratios_valid


def test_wrong_codes_get_no_number(codes: GoldenCodes) -> None:
    run = run_of(codes, wrong_after=2)
    web, baseline = run.candidates
    assert web.latency is None
    assert web.failure == f"{2 * codes.images:,} codes differ from the golden ones: no number for it"
    assert baseline.latency is not None
    assert not run.ratios
    said = answer(run, check(visit(codes), codes, MODELS), report())
    assert said["passed"] is False


def test_the_file_is_one_that_report_reads(codes: GoldenCodes, tmp_path: Path) -> None:
    result = Result(
        schema_version=SCHEMA_VERSION,
        created="2026-01-02T03:04:05+00:00",
        command="stage2 serve bundle",
        tier="web",
        golden_sha256="b" * 64,
        weights="the bundle's",
        runs=(run_of(codes), run_of(codes, timed=False, models={}, failure="out of memory")),
    )
    (tmp_path / "web.json").write_text(json.dumps(dataclasses.asdict(result)))
    assert read_result(tmp_path / "web.json") == result


def test_the_page_is_answered_what_the_terminal_shows(codes: GoldenCodes) -> None:
    results = check(visit(codes), codes, MODELS)
    assert [one.session.runtime for one in results] == ["web"]
    assert results[0].session.version == vendor.VERSION
    said = answer(run_of(codes), results, report())
    count = sum(wanted.size for wanted in codes.wanted)
    assert said["summary"] == f"All {count:,} codes are equal."
    assert said["passed"] is True
    assert said["valid"] is True
    assert said["verdict"] == "These times can be trusted."
    assert said["sha256"] == results[0].golden_sha256[:10]
    json.dumps(said)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (ANDROID, "Chrome 130 on Android 14"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128 on Linux"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari 17 on iOS 17",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 "
            "Safari/537.36 Edg/130.0",
            "Edge 130 on Windows",
        ),
        ("curl/8", "an unknown browser"),
        ("", "an unknown browser"),
    ],
)
def test_browsers_are_called_by_their_names(user_agent: str, name: str) -> None:
    assert browser(user_agent) == name
