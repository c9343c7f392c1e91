"""`stage2 report`: one page that a browser shows without an error, on any screen."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.apps.reporting.markdown import markdown
from litehrnet_stage2.apps.reporting.page import by_family, page
from litehrnet_stage2.apps.reporting.terminal import show
from litehrnet_stage2.runtime.devices import CoreKind, DeviceFacts
from litehrnet_stage2.runtime.latency import (
    SCHEMA_VERSION,
    CandidateResult,
    Result,
    ResultError,
    Run,
    intervals,
    read_result,
)
from litehrnet_stage2.runtime.latency.result import (
    Cold,
    Covered,
    Environment,
    Instructions,
    Interval,
    Memory,
    OperatorTime,
    Profile,
    Ratio,
    Validity,
)
from litehrnet_stage2.runtime.parity import OutputParity

HOSTILE = "<script>alert('no')</script>"


def parity(mismatches: int) -> dict[str, OutputParity]:
    histogram = {0: 1000 - mismatches, 1: mismatches // 2, -3: mismatches - mismatches // 2}
    noise = 21.5 if mismatches else None
    one = OutputParity(
        compared=1000,
        mismatches=mismatches,
        max_lsb=3 if mismatches else 0,
        histogram={step: count for step, count in histogram.items() if count},
        sqnr_db=noise,
    )
    return {"y1": one, "y2": one}


def timed(name: str, median: float, *, exact: bool) -> CandidateResult:
    rng = np.random.default_rng(int(median * 100))
    processes = [rng.normal(median, 0.05 * median, 40) for _ in range(5)]
    return CandidateResult(
        name=name,
        library="executorch",
        version="1.5.1",
        artifact="stage2.pte",
        sha256="a" * 64,
        size_bytes=123456,
        threads=1,
        exact=exact,
        baseline=not exact,
        floating=False,
        description="",
        images=13,
        parity_before=parity(0 if exact else 640),
        parity_after=parity(0 if exact else 640),
        latency=intervals.latency(processes, warmup_queries=[20] * 5, steady=True),
        cold=Cold(load_ms=(1.5,) * 5, first_ms=(17.25,) * 5),
        memory=Memory(rss_before_load_mib=200.0, rss_peak_mib=321.0),
        profile=Profile(
            source="ExecuTorch's event tracer",
            operators=(
                OperatorTime(kind="Convolution", count=20, share=0.75, ms=3.0),
                OperatorTime(kind=HOSTILE, count=16, share=0.25, ms=1.0),
            ),
        ),
        coverage=Covered(int8={"convolution": 20}, floating={}, boundary={"quantize": 1}, partitions=1)
        if exact
        else None,
    )


def one_run(*candidates: CandidateResult, device: str = "local", reasons: tuple[str, ...] = ()) -> Run:
    ours = [c for c in candidates if c.exact and c.latency]
    ratios = []
    for a in ours:
        for b in candidates:
            if b.latency and not b.exact:
                samples = [[[np.array(process)] for process in c.latency.samples_ms] for c in (a, b) if c.latency]
                interval, rounds = intervals.ratio(*samples)
                ratios.append(Ratio(numerator=a.key, denominator=b.key, ratio=interval, rounds=rounds, cpu_time=0.5))
    return Run(
        machine=DeviceFacts(
            device=device,
            emulated=device.startswith("emulated"),
            arch="x86_64",
            cores=(CoreKind(name="Example CPU", part="", cores=(0, 1)),),
            features=("avx2", "avx512_vnni"),
        ),
        environment=Environment(
            os="Linux-6.1",
            python="3.11.7",
            memory_mib=24000,
            cores=2,
            usable_cores=(0, 1),
            affinity=(),
            load_1min_before=0.1,
            load_1min_after=0.2,
            versions={"executorch": "1.5.1"},
            git_revision="0123456789ab",
        ),
        validity=Validity(
            valid=not reasons,
            reasons=reasons,
            ratio_reasons=reasons,
            unknown=("temperature",),
            bounds={"other_cores": 0.25},
        ),
        candidates=candidates,
        ratios=tuple(ratios),
    )


def result(run: Run, created: str = "2026-01-02T03:04:05+00:00") -> Result:
    return Result(
        schema_version=SCHEMA_VERSION,
        created=created,
        command="stage2 bench bundle --tier quick",
        tier="quick",
        golden_sha256="b" * 64,
        weights="the bundle's own",
        runs=(run,),
    )


@pytest.fixture(scope="module")
def results() -> list[Result]:
    """A good machine, a loaded one with a failed artifact, and an emulated one."""
    ours, baseline = timed("executorch", 4.0, exact=True), timed("fp32 .pte", 8.0, exact=False)
    failed = dataclasses.replace(
        timed("onnxruntime", 6.0, exact=True),
        latency=None,
        cold=None,
        memory=None,
        profile=None,
        failure="12 codes differ from the golden ones before timing: no number for it",
        parity_after=None,
        parity_before=parity(12),
    )
    counted = dataclasses.replace(
        ours, latency=None, cold=None, memory=None, instructions=Instructions(per_inference=5.58e7, queries=4)
    )
    fewer = Ratio(
        numerator=counted.key,
        denominator=baseline.key,
        ratio=Interval(value=0.29, low=0.29, high=0.29),
        rounds=(0.29,),
        cpu_time=None,
    )
    loaded = one_run(
        ours, failed, baseline, reasons=("the machine was loaded: other processes kept 1.50 of 2 cores busy",)
    )
    return [
        result(one_run(ours, baseline)),
        result(loaded, "2026-02-03T04:05:06+00:00"),
        result(dataclasses.replace(one_run(counted, device="emulated:cortex-a76"), ratios=(fewer,))),
    ]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))


def test_the_page_needs_nothing_from_the_network(results: list[Result]) -> None:
    html = page(results)
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html


def test_the_page_has_the_numbers_and_the_verdict(results: list[Result]) -> None:
    text = text_of(page(results))
    for number in ("4.0", "17.2", "321", "75.0%", "55.8 M", "21.5 dB", "640 (64.00%)"):
        assert number in text, number
    assert "These numbers can be trusted." in text
    assert "Do not rely on these numbers." in text
    assert "other processes kept 1.50 of 2 cores busy" in text
    assert "12 codes differ from the golden ones" in text
    assert "20 convolution" in text


def test_operators_of_any_runtime_fall_into_families() -> None:
    kinds = {
        "Convolution (NHWC, QC8) DWConv": "depthwise convolution",
        "Fully Connected (NC, QS8, QC8W) GEMM": "convolution",
        "QLinearConv": "convolution",
        "Table lookup (SiLU)": "activation",
        "QLinearSigmoid": "activation",
        "QLinearMul": "multiplication",
        "Add (ND)": "addition",
        "Resize Bilinear (NHWC)": "resize",
        "DequantizeLinear": "quantise, dequantise, lay out",
        "Transpose (ND, X8)": "quantise, dequantise, lay out",
        "Softmax": "other",
    }
    for kind, family in kinds.items():
        operators = (OperatorTime(kind=kind, count=1, share=1.0, ms=1.0),)
        assert by_family(Profile(source="", operators=operators)) == [(family, 1.0)], kind


def test_instructions_are_never_called_a_latency(results: list[Result]) -> None:
    emulated = results[2:]
    text = markdown(emulated)
    assert "| instructions against | executorch, 1 thread |" in text
    assert "| fp32 .pte, 1 thread | **0.29** |" in text
    assert "latency" not in text
    shown = text_of(page(emulated))
    assert "ratio of instructions" in shown
    assert "ratio of medians" not in shown
    assert "ratio of latencies" not in shown


def test_a_machine_that_changed_its_speed_has_ratios_to_rely_on(results: list[Result]) -> None:
    run = results[0].runs[0]
    validity = dataclasses.replace(
        run.validity, valid=False, reasons=("latencies drifted by +8%",), ratio_reasons=(), unknown=()
    )
    drifted = [dataclasses.replace(results[0], runs=(dataclasses.replace(run, validity=validity),))]
    assert "The ratios are valid, the milliseconds are not: latencies drifted by +8%." in markdown(drifted)
    assert "Rely on the ratios, in which candidates alternated" in text_of(page(drifted))
    said = io.StringIO()
    show(drifted[0].runs[0], Console(file=said, width=200))
    assert "The ratios are valid, the milliseconds are not: latencies drifted by +8%." in said.getvalue()


def test_no_text_of_a_file_has_a_control_character_on_the_page(results: list[Result]) -> None:
    command = dataclasses.replace(results[0], command="stage2 bench \x1b[2J\u202e", weights="\x9b\x00")
    assert not set(page([command])) & {"\x1b", "\x9b", "\x00", "\u202e"}
    assert "stage2 bench \N{REPLACEMENT CHARACTER}[2J" in page([command])


def test_names_are_escaped(results: list[Result]) -> None:
    html = page(results)
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html


def test_markdown_has_the_same_numbers(results: list[Result]) -> None:
    text = markdown(results)
    p50 = results[0].runs[0].candidates[0].latency
    assert p50 is not None
    assert f"| **executorch, 1 thread** | {p50.p50_ms.value:.2f} |" in text
    ratio = results[0].runs[0].ratios[0].ratio
    assert f"| fp32 .pte, 1 thread | **{ratio.value:.2f}** ({ratio.low:.2f} to {ratio.high:.2f}) [0.50] |" in text
    assert "Not valid: the machine was loaded" in text
    assert "55.8 M" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_the_command_writes_both(results: list[Result], tmp_path: Path) -> None:
    paths = []
    for i, one in enumerate(results):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(dataclasses.asdict(one)))
        paths.append(str(path))
    html, table = tmp_path / "out.html", tmp_path / "out.md"
    done = CliRunner().invoke(app, ["report", *paths, "--html", str(html), "--markdown", str(table)])
    assert done.exit_code == 0, done.output
    assert html.read_text() == page(results)
    assert table.read_text() == markdown(results)


@pytest.mark.parametrize(("option", "render"), [("--html", page), ("--markdown", markdown)])
def test_a_dash_is_standard_output(
    option: str, render: Callable[[list[Result]], str], results: list[Result], tmp_path: Path
) -> None:
    path = tmp_path / "0.json"
    path.write_text(json.dumps(dataclasses.asdict(results[0])))
    done = CliRunner().invoke(app, ["report", str(path), option, "-"])
    assert (done.exit_code, done.stdout) == (0, render(results[:1]))
    assert not Path("-").exists()


def test_the_result_in_the_repository_is_one() -> None:
    names = {f"{library}{border}" for library in ("executorch", "litert", "onnxruntime") for border in ("", "-codes")}
    for file in ("x86-64.json", "x86-64-whole-network.json"):
        read = read_result(Path(__file__).parents[2] / "benchmarks" / file)
        ours = [c for c in read.runs[0].candidates if c.exact]
        assert {c.name for c in ours} == names
        assert all(c.latency for c in ours)
        assert "| **executorch, 1 thread** |" in markdown([read])


def test_markdown_of_several_timed_results_begins_with_them_side_by_side(results: list[Result]) -> None:
    timed = results[0]
    head, _, first, *_ = markdown([timed, timed]).splitlines()
    assert head.count("p50 ms") == 2
    p50 = timed.runs[0].candidates[0].latency
    assert p50 is not None
    assert first.startswith("| **executorch** |")
    assert first.count(f" {p50.p50_ms.value:.2f} |") == 2
    assert markdown([timed]).startswith("### ")


def test_markdown_of_several_counted_results_begins_with_them_side_by_side() -> None:
    files = ("arm_instructions.json", "arm_instructions_whole_network.json")
    counted = [read_result(Path(__file__).parents[2] / "benchmarks" / file) for file in files]
    head, _, first, *_ = markdown(counted).splitlines()
    assert head.startswith("| artifact | stage2, M instructions | of fp32 .pte | landmarks, M instructions |")
    ours = counted[1].runs[0].candidates[0].instructions
    assert ours is not None
    assert f" {ours.per_inference / 1e6:.1f} | " in first


def test_a_file_that_is_no_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=said, width=1000))
    (tmp_path / "other.json").write_text("{}")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "other.json"), "--html", str(tmp_path / "out.html")])
    assert done.exit_code == 2
    assert "is not a benchmark result" in said.getvalue()
    assert not (tmp_path / "out.html").exists()


NASTY = [
    None,
    True,
    -1,
    0,
    1e308,
    5e-324,
    10**400,
    "",
    "\x1b[31m\x00\u202e",
    HOSTILE,
    "\ud800",
    [],
    {},
    {"": ""},
    [[[[]]]],
]


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every container and key in plain data, one entry of each list."""
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from places(value[key])
    elif isinstance(value, list) and value:
        yield value, 0
        yield from places(value[0])


def test_whatever_stands_in_a_result_it_is_refused_or_shown(results: list[Result], tmp_path: Path) -> None:
    """Never a traceback, never markup, never a character that a terminal obeys."""
    path = tmp_path / "result.json"
    shown = 0
    refused: list[str] = []
    for original in results:
        values = json.loads(json.dumps(dataclasses.asdict(original)))
        for number, (container, key) in enumerate(places(values)):
            for nasty in (NASTY[number % len(NASTY)], NASTY[(number + 7) % len(NASTY)]):
                kept, container[key] = container[key], nasty
                path.write_text(json.dumps(values))
                container[key] = kept
                try:
                    read = read_result(path)
                except ResultError as error:
                    refused.append(str(error))
                    continue
                shown += 1
                text = markdown([read]) + page([read])
                text.encode()
                assert "<script" not in text
                printed = io.StringIO()
                show(read.runs[0], Console(file=printed, width=80))
                assert not set(text + printed.getvalue()) & {"\x1b", "\x00", "\u202e"}, key
    assert shown > 100
    assert len(refused) > 100
    assert not [sentence for sentence in refused if "\n" in sentence]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as JSON"),
        ("[]", "is not a benchmark result"),
        ('{"schema_version": "3.0"}', "is not a benchmark result"),
        ('{"schema_version": 2, "runs": []}', "is of schema version 2, and this reads 4.0: run the benchmark again"),
        ('{"schema_version": "99.0", "runs": []}', "is of schema version '99.0'"),
        ('{"schema_version": "3.0", "runs": []}', "is damaged"),
        ('{"schema_version": "3.0", "runs": ' + "[" * 10_000, "nested too deeply"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=said):
        read_result(path)


def test_an_unknown_field_is_refused_of_this_version_and_left_out_of_a_later_one(
    results: list[Result], tmp_path: Path
) -> None:
    values = {**json.loads(json.dumps(dataclasses.asdict(results[0]))), "later": 1}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ResultError, match="has a field 'later', which is unknown"):
        read_result(path)
    path.write_text(json.dumps(values | {"schema_version": "4.7"}))
    assert read_result(path).runs == results[0].runs


def test_a_file_of_schema_3_which_called_a_baseline_a_peer_is_read(results: list[Result], tmp_path: Path) -> None:
    text = json.dumps({**dataclasses.asdict(results[0]), "schema_version": "3.0"}).replace('"baseline":', '"peer":')
    path = tmp_path / "result.json"
    path.write_text(text)
    assert '"peer": true' in text
    assert read_result(path).runs == results[0].runs
    path.write_text(text.replace('"peer": true', '"peer": true, "baseline": false'))
    with pytest.raises(ResultError, match="has a field 'peer', which is unknown"):
        read_result(path)


def test_names_wrap_in_80_columns_and_are_not_cut(results: list[Result]) -> None:
    long = "an-artifact-with-a-name-that-is-longer-than-anyone-would-give-it.onnx"
    run = results[0].runs[0]
    named = tuple(dataclasses.replace(c, name=c.name if c.baseline else long) for c in run.candidates)
    said = io.StringIO()
    show(dataclasses.replace(run, candidates=named, ratios=()), Console(file=said, width=80))
    lines = said.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert long in "".join(line.split(" ")[1] for line in lines if line.strip()), said.getvalue()
    assert "…" not in said.getvalue()


def test_signal_to_noise_is_shown_everywhere(results: list[Result]) -> None:
    run = results[0].runs[0]
    ours, baseline = run.candidates
    measured = (
        dataclasses.replace(ours, sqnr_db={"y1": 21.04, "y2": 20.1}),
        dataclasses.replace(baseline, floating=True, sqnr_db={"y1": 31.0, "y2": 30.0}),
    )
    result = dataclasses.replace(results[0], runs=(dataclasses.replace(run, candidates=measured),))
    said = io.StringIO()
    show(result.runs[0], Console(file=said, width=200))
    text = markdown([result])
    assert "SQNR dB y1, y2 |" in text
    assert "| 0 | 21.0, 20.1 |" in text
    assert "| float |" in text
    for shown in (said.getvalue(), text_of(page([result]))):
        assert "21.0, 20.1" in shown
        assert "float" in shown


def test_every_ratio_stands_beside_the_processor_it_was_taken_on(results: list[Result]) -> None:
    said = io.StringIO()
    show(results[0].runs[0], Console(file=said, width=200))
    assert "on Example CPU" in said.getvalue()
    assert "On Example CPU: median over pairs of turns" in markdown(results[:1])
    assert "On Example CPU." in text_of(page(results[:1]))


CHECKS = """
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => d.open = true);
  const outside = [...document.querySelectorAll("svg text")].filter(t => {
    const box = t.getBBox(), view = t.ownerSVGElement.viewBox.baseVal;
    return box.x < -1 || box.x + box.width > view.width + 1 || box.y + box.height > view.height + 1;
  }).map(t => t.textContent);
  const style = getComputedStyle(document.body);
  document.documentElement.dataset.found = JSON.stringify({
    width: innerWidth, scroll: document.documentElement.scrollWidth, outside,
    small: Math.min(...[...document.querySelectorAll("svg text")].map(t => {
      return parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / 640;
    })),
    heads: Math.max(...[...document.querySelectorAll("thead th")].map(h => h.getClientRects()[0].height / 20)),
    charts: [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 20).length,
    paper: style.backgroundColor, ink: style.color,
  });
});
</script>
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[dict[str, object], str]]:
    """Open HTML in headless Chromium: what the checks found there, and what the browser had to say."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: `apt-get install chromium` for the test that opens the report")

    def open_(html: str, *flags: str, width: int = 1200) -> tuple[dict[str, object], str]:
        folder = tmp_path_factory.mktemp("browser")
        (folder / "page.html").write_text(html.replace("</body>", CHECKS + "</body>"))
        done = subprocess.run(
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                f"--user-data-dir={folder / 'profile'}",
                "--enable-logging=stderr",
                f"--window-size={width},900",
                *flags,
                "--dump-dom",
                f"file://{folder / 'page.html'}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found = re.search(r'data-found="([^"]*)"', done.stdout)
        assert found is not None, done.stderr
        checked: dict[str, object] = json.loads(unescape(found[1]))
        return checked, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)

    return open_


@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_without_an_error(
    results: list[Result], browse: Callable[..., tuple[dict[str, object], str]], width: int
) -> None:
    html = page(results)
    found, said = browse(html, width=width)
    assert said == ""
    assert found["scroll"] <= found["width"]  # nothing makes a phone scroll sideways
    assert found["outside"] == []
    assert found["charts"] == html.count("<svg")
    assert float(str(found["small"])) > 10  # px of the chart's text on the screen
    assert float(str(found["heads"])) < 5  # lines


def test_a_dark_screen_gets_a_dark_page(
    results: list[Result], browse: Callable[..., tuple[dict[str, object], str]]
) -> None:
    light, _ = browse(page(results))
    dark, _ = browse(page(results), "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    assert light["paper"] == "rgb(255, 255, 255)"
    assert dark["paper"] != light["paper"]
    assert dark["ink"] != light["ink"]
