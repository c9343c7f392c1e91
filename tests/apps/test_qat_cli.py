"""The commands `qat` and `qat-report`: light to import, plain about what is missing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.qat.command import register


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    register(made)
    return made


def test_the_commands_import_nothing_heavy_until_they_run() -> None:
    script = (
        "import sys, litehrnet_stage2.apps.qat.command\n"
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_shows_every_option_and_examples(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["qat", "--help"], env={"COLUMNS": "200"}).output
    for part in ("--features", "--teacher", "--config", "--set", "--task", "--resume", "torchrun", "Examples"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--teacher is missing"),
        (["--teacher", "nowhere.safetensors"], "no checkpoint at nowhere.safetensors"),
        (["--set", "steps=0"], "`steps` (=0) must lie in"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--task", "landmarks", "--features", "x.npy"], "goes with task 'distillation'"),
    ],
)
def test_a_mistake_ends_with_2_and_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "litehrnet_stage2.apps.qat.command", "--out", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_runtime_in_the_report_is_refused_with_the_known_ones(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=said, width=200))
    assert CliRunner().invoke(app, ["qat-report", "--runtimes", "tflite"]).exit_code == 2
    assert "unknown runtime 'tflite': accepted are executorch, litert, onnxruntime" in said.getvalue()
