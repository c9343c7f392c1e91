"""Whatever becomes of a command's output and folders, it ends with a sentence and the exit status that means it."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from rich.console import Console

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.features_file import find_features

STAGE2 = shlex.quote(str(Path(sys.executable).with_name("stage2")))


def shell(line: str, *, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `stage2` is the command; it ends with the status of the first part of a pipe."""
    script = f'stage2() {{ {STAGE2} "$@"; }}\n{line}\nexit ${{PIPESTATUS[0]}}'
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        errors="replace",
        env={**inherited, "COLUMNS": "200", "NO_COLOR": "1", **environment},
        timeout=300,
        check=False,
        cwd=cwd,
    )


def assert_sentence(done: subprocess.CompletedProcess[str], what: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error:") and what in line], done.stderr


@pytest.mark.parametrize("command", ["--help", "parity {bundle} --runtime golden", "inspect {bundle} --json -"])
@pytest.mark.parametrize(
    ("to", "what"),
    [(">/dev/full", "No space left on device: standard output"), (">&-", "closed: standard output")],
)
def test_output_that_cannot_be_written_is_a_sentence_and_never_exit_1(
    command: str, to: str, what: str, small_bundle: Path
) -> None:
    """1 means that codes differ."""
    assert_sentence(shell(f"stage2 {command.format(bundle=small_bundle)} {to}"), what)


@pytest.mark.parametrize("command", ["--help", "parity {bundle} --runtime golden", "inspect {bundle} --json -"])
def test_a_reader_that_goes_away_is_quiet_success(command: str, small_bundle: Path) -> None:
    done = shell(f"stage2 {command.format(bundle=small_bundle)} | true")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-", "2>&- <&-"])
def test_progress_that_nobody_can_see_changes_nothing(to: str, small_bundle: Path) -> None:
    done = shell(f"stage2 parity {small_bundle} --runtime golden --json - {to}")
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["passed"]
    assert shell(f"stage2 parity missing {to}").returncode == 2


def test_what_is_printed_with_standard_output_closed_lands_in_no_file(small_bundle: Path, tmp_path: Path) -> None:
    """The next file that is opened gets the number of a closed descriptor, and a library may print to it."""
    shell(f"stage2 parity {small_bundle} --runtime golden --json {tmp_path}/result.json >&- 2>&-")
    assert json.loads((tmp_path / "result.json").read_text())


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C"}])
def test_an_ascii_terminal_gets_ascii(environment: dict[str, str], small_bundle: Path) -> None:
    for command in (f"inspect {small_bundle}", "doctor", "inspect mörg"):
        done = shell(f"stage2 {command}", **environment)
        assert (done.stdout + done.stderr).isascii()
        assert "Traceback" not in done.stderr
    assert "+--" in shell(f"stage2 inspect {small_bundle}", **environment).stdout


def test_a_deleted_folder_is_a_sentence(small_bundle: Path, tmp_path: Path) -> None:
    for command in (f"inspect {small_bundle}", f"inspect {small_bundle} --json x.json", "convert --out bundle"):
        done = shell(f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; stage2 {command}")
        assert_sentence(done, "the current folder was deleted: change to another one")


@pytest.mark.parametrize("command", ["parity", "bench"])
def test_an_absurd_number_of_threads_is_a_sentence(command: str, small_bundle: Path) -> None:
    """A library that cannot start them ends the process without one."""
    done = shell(f"stage2 {command} {small_bundle} --runtime onnxruntime --threads 100000000")
    assert_sentence(done, "`threads` (=100000000) must be at least 1 and at most 256")


def test_brackets_in_a_path_are_neither_a_pattern_nor_markup(
    small_features: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "[1] x").mkdir()
    np.save(tmp_path / "[1] x/a.npy", small_features)
    (tmp_path / "[1] x/._a.npy").write_bytes(b"what macOS leaves")
    for named in (tmp_path / "[1] x/a.npy", tmp_path / "[1] x", tmp_path / "*" / "*.npy"):
        assert [path.name for path in find_features(str(named))] == ["a.npy"]
    for name in ("q[/b]", "[red]x"):
        assert_sentence(shell(f"stage2 inspect {shlex.quote(name)}"), f"{name} is no bundle")


NAMELESS = """
import pwd, sys
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
from litehrnet_stage2.apps.cli import main
sys.argv[0] = "stage2"
main()
"""


def test_a_process_without_home_and_passwd_entry_runs_or_says_what_to_set(
    small_bundle: Path, small_checkpoint: list[str], tmp_path: Path
) -> None:
    """As in a container that is started under a number."""
    stage2 = f"env -u HOME -u USER -u LOGNAME -u XDG_CACHE_HOME {sys.executable} -c {shlex.quote(NAMELESS)}"
    done = shell(f"{stage2} parity {small_bundle} --runtime golden --runtime executorch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell(f"{stage2} convert {shlex.join(small_checkpoint)} --out {tmp_path}/bundle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = shell(f"{stage2} parity {small_bundle} --device local", cwd=tmp_path)
    assert_sentence(done, "LITEHRNET_STAGE2_CACHE")


@pytest.mark.parametrize("cache", ["{}/file", "{}/file/cache", "/sys/cache"])
def test_a_cache_that_cannot_be_one_is_a_sentence(cache: str, small_bundle: Path, tmp_path: Path) -> None:
    """A file, a folder under a file, and one that not even root can make."""
    (tmp_path / "file").write_text("no folder")
    cache = cache.format(tmp_path)
    done = shell(f"stage2 parity {small_bundle} --device local", LITEHRNET_STAGE2_CACHE=cache)
    assert_sentence(done, cache.removesuffix("/cache") if "file" in cache else cache)


def test_a_bundle_from_elsewhere_is_run_though_nothing_can_be_remembered(small_bundle: Path) -> None:
    done = shell(f"stage2 parity {small_bundle} --runtime onnxruntime", LITEHRNET_STAGE2_CACHE="/sys/cache")
    assert done.returncode == 0, done.stderr


def test_no_folder_for_temporary_files_is_a_sentence_or_no_matter(small_bundle: Path, tmp_path: Path) -> None:
    """Linux has no file beside a device."""
    done = shell(
        f"stage2 parity {small_bundle} --runtime golden --runtime onnxruntime",
        cwd=Path("/proc/self"),
        TMPDIR="/dev/null",
    )
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr


def test_no_room_without_a_place_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's write to a temporary file has no name."""
    said = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=said, width=200))
    with pytest.raises(typer.Exit) as end, console.mistakes(verbose=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert end.value.exit_code == 2
    assert "No space left on device, where the result goes or where temporary files do: make room" in said.getvalue()


# --json PATH


def test_json_goes_to_a_device_a_fifo_a_descriptor_and_through_a_link(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").write_text("stale")
    os.mkfifo(tmp_path / "fifo")
    done = shell(
        "set -e\n"
        f"stage2 inspect {small_bundle} --json link >/dev/null\n"
        f"stage2 inspect {small_bundle} --json /dev/null >/dev/null\n"
        f"stage2 inspect {small_bundle} --json >(cat > process; touch over) >/dev/null\n"
        "cat fifo > through & "
        f"stage2 inspect {small_bundle} --json fifo >/dev/null; wait\n"
        f"stage2 inspect {small_bundle} --json /dev/fd/3 3>descriptor >/dev/null\n"
        "while [ ! -e over ]; do sleep 0.05; done\ntrue",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((small_bundle / "manifest.json").read_text())
    for name in ("target", "process", "through", "descriptor"):
        assert json.loads((tmp_path / name).read_text())["golden_sha256"] == manifest["golden_sha256"], name
    assert (tmp_path / "link").is_symlink()
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_version_and_short_help_are_where_people_look() -> None:
    assert shell("stage2 --version").stdout == "stage2 0.1.0\n"
    for command in ("-h", "convert -h", "runner -h", "runner --help", "runner build --help"):
        done = shell(f"stage2 {command}")
        assert done.returncode == 0
        assert "Usage: stage2" in done.stdout


def test_every_table_is_one_that_cuts_no_name() -> None:
    """Those of `console.table`, and of the report, whose own tests say so."""
    apps = Path(console.__file__).parent
    own = {path.name for path in apps.rglob("*.py") if " Table(" in path.read_text()}
    assert own == {"console.py", "terminal.py"}
