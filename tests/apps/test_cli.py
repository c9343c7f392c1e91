"""The command line as a whole: quick to start, help with examples, mistakes in a sentence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.main import get_command

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.reference.config import Stage2Config

Command = Callable[..., subprocess.CompletedProcess[str]]

COMMANDS = ("demo", "convert", "parity", "inspect")
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "executorch", "coremltools", "safetensors", "sklearn", "skimage")


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str], python: Command) -> None:
    """What decides how long it takes, on any machine."""
    done = python(
        "import json, sys\n"
        "from litehrnet_stage2.apps.cli import main\n"
        "sys.argv = ['stage2', *sys.argv[2:]]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)",
        "-",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(json.loads(done.stderr))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example_that_starts_with_it(command: str, stage2: Command) -> None:
    done = stage2(command, "--help")
    assert done.returncode == 0
    assert f"stage2 {command}" in done.stdout.split("Example")[1]


@pytest.mark.parametrize("name", get_command(app).commands)
def test_every_command_has_help(name: str) -> None:
    assert len(get_command(app).commands[name].help or "") > 40


def test_no_arguments_show_the_commands(stage2: Command) -> None:
    done = stage2()
    assert all(command in done.stdout + done.stderr for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nonsense"], "No such command"),
        (["parity"], "Missing argument"),
        (["parity", "{missing}"], "is no bundle (it has no manifest.json): make one with `stage2 convert --out"),
        (["inspect", "{missing}"], "is no bundle"),
        (["parity", "{bundle}", "--runtime", "tflite"], "unknown runtime 'tflite': the runtimes are golden"),
        (["parity", "{bundle}", "--threads", "0"], "`threads` (=0) must be at least 1"),
        (["parity", "{bundle}", "--inputs", "{missing}"], "no file"),
        (["parity", "{bundle}", "--json", "{missing}/x.json"], "x.json cannot be written: there is no folder"),
        (["convert"], "Missing option '--out'"),
        (["convert", "--out", "{bundle}/manifest.json"], "exists and is no bundle"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_2(
    arguments: list[str], what: str, stage2: Command, small_bundle: Path, tmp_path: Path
) -> None:
    done = stage2(*(a.format(missing=tmp_path / "missing", bundle=small_bundle) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) <= 1


def test_verbose_shows_where_it_happened(stage2: Command, tmp_path: Path) -> None:
    done = stage2("inspect", tmp_path / "missing", "--verbose")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("work", "status"),
    [
        (lambda: 1 / 0, 3),
        (lambda: json.loads("{"), 3),  # a ValueError, but of a library that we should not have called so
        (lambda: Stage2Config(num_channels=(0, 8)), 2),
        (lambda: Path("/missing").read_text(), 2),
    ],
    ids=["a bug of ours", "a library's ValueError", "a ValueError of ours", "the file system's"],
)
def test_what_is_no_users_mistake_has_a_traceback_and_exit_3(
    work: Callable[[], object], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "err", Console(stderr=True))
    with pytest.raises(typer.Exit) as end, console.working(verbose=False):
        work()
    assert end.value.exit_code == status
    assert ("Traceback" in capsys.readouterr().err) == (status == 3)


def test_json_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "result.json").write_text("old")

    def fail(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        console.write_json({"passed": True}, tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_text() == "old"


def test_json_has_the_numbers_of_a_list_on_one_line(tmp_path: Path) -> None:
    value = {"samples_ms": [[1.5, -2e-07], [3]], "empty": [], "said": ["[", "1, 2", "]"], "text": "[\n1\n]"}
    console.write_json(value, tmp_path / "result.json")
    text = (tmp_path / "result.json").read_text()
    assert json.loads(text) == value
    assert "[1.5, -2e-07],\n" in text
