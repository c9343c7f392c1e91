"""`stage2 bench`: the table, the JSON, the exit status, and mistakes in one sentence."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.bench import parse_cores
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.runtime.latency import plan, read_result

SHORT = {"quick": plan.Tier("quick", 10, 0.2)}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier that suffices to see that everything is there."""
    monkeypatch.setitem(plan.TIERS, "quick", SHORT["quick"])


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the command says on standard error."""
    text = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=text, width=1000))
    return text


def bench(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)], env={"COLUMNS": "100"})
    return done.exit_code, done.output


def test_bench_prints_a_table_and_writes_json(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    status, said = bench(small_bundle, "--tier", "quick", "--runtime", "onnxruntime", "--json", out)
    assert status == 0, said
    result = read_result(out)
    (candidate,) = result.runs[0].candidates
    assert candidate.latency is not None
    assert len(candidate.latency.samples_ms) == plan.PROCESSES
    assert result.tier == "quick"
    assert list(tmp_path.iterdir()) == [out]


def test_bench_compares_with_baselines_of_the_same_weights(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITEHRNET_STAGE2_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "result.json"
    status, said = bench(
        small_bundle, "--tier", "quick", "--runtime", "onnxruntime", "--against", "fp32", "--json", out
    )
    assert status == 0, said
    ratios = json.loads(out.read_text())["runs"][0]["ratios"]
    assert {(r["numerator"], r["denominator"]) for r in ratios} == {
        ("onnxruntime, 1 thread", "fp32 .pte, 1 thread"),
        ("onnxruntime, 1 thread", "fp32 .onnx, 1 thread"),
    }
    for ratio in ratios:
        assert len(ratio["rounds"]) == plan.PROCESSES
        assert ratio["ratio"]["low"] <= ratio["ratio"]["value"] <= ratio["ratio"]["high"]


def test_a_damaged_artifact_is_refused_before_anything_is_timed(damaged: Path, errors: io.StringIO) -> None:
    (damaged / "stage2.onnx").write_bytes(b"cut short")
    status, _ = bench(damaged, "--tier", "quick", "--runtime", "onnxruntime")
    assert status == 2
    assert "is 9 bytes, the manifest says" in errors.getvalue()
    assert "round" not in errors.getvalue()


def test_where_the_result_goes_is_checked_before_anything_is_timed(
    small_bundle: Path, tmp_path: Path, errors: io.StringIO
) -> None:
    for path, why in ((tmp_path / "missing" / "q.json", "there is no folder"), (tmp_path, "it is a folder")):
        status, _ = bench(small_bundle, "--json", path)
        assert status == 2
        assert f"{path} cannot be written: {why}" in errors.getvalue()
    assert "round" not in errors.getvalue()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tier", "eternal"], "unknown tier 'eternal': the tiers are quick, standard, full"),
        (["--runtime", "tflite"], "unknown runtime 'tflite'"),
        (["--threads", "0"], "`threads` (=0) must be at least 1"),
        (["--affinity", "first"], "--affinity 'first' names no cores: the form is `0,2-3`"),
        (["--against", "everyone"], "unknown baselines 'everyone'"),
        (["--sustained", "-1"], "`sustained_min` (=-1.0)"),
    ],
)
def test_mistakes_end_with_status_2_before_anything_is_timed(
    small_bundle: Path, errors: io.StringIO, arguments: list[str], sentence: str
) -> None:
    status, _ = bench(small_bundle, *arguments)
    assert status == 2
    assert sentence in errors.getvalue()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, errors: io.StringIO) -> None:
    status, _ = bench(tmp_path)
    assert status == 2
    assert "is no bundle" in errors.getvalue()


def test_cores_are_given_as_on_a_command_line() -> None:
    assert parse_cores("") == ()
    assert parse_cores("3") == (3,)
    assert parse_cores("0,2-4,2") == (0, 2, 3, 4)


def test_a_bundle_can_be_timed_from_a_folder_with_spaces(small_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_bundle, tmp_path / "a bundle of mine")
    status, said = bench(folder, "--tier", "quick", "--runtime", "onnxruntime")
    assert status == 0, said
