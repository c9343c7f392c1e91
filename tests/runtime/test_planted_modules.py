"""No file of the current folder is executed as a module: a bundle comes from elsewhere, and people stand in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import litehrnet_stage2
from litehrnet_stage2.apps import cli
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.apps.landmarks.pool import rendered
from litehrnet_stage2.runtime import Bundle, open_session
from litehrnet_stage2.runtime.coreml.predict import PredictionError, predict
from litehrnet_stage2.runtime.devices import DeviceError, RunnerBuild, parse_device
from litehrnet_stage2.runtime.devices.emulation import ArmPython
from litehrnet_stage2.runtime.devices.wheels import Wheel
from litehrnet_stage2.runtime.latency import plan
from litehrnet_stage2.runtime.programs.device_program import open_device_session
from tests.runtime.test_trial import changed

NAMES = (
    "numpy",
    "pip",
    "json",
    "dataclasses",
    "multiprocessing",
    "onnxruntime",
    "torch",
    "litehrnet_stage2",
    "argparse",
)


@pytest.fixture
def executed(damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Stand in a bundle with a Python file of each name; says which of them were executed."""
    marks = tmp_path / "marks"
    marks.mkdir()
    for name in NAMES:
        code = f"import pathlib\npathlib.Path({str(marks)!r}, {name!r}).touch()\nraise SystemExit('planted')\n"
        (damaged / f"{name}.py").write_text(code)
    monkeypatch.chdir(damaged)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return lambda: sorted(mark.name for mark in marks.iterdir())


def test_the_planted_files_would_run_without_the_flag(executed: Callable[[], list[str]]) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    assert executed() == ["pip"]


def test_bench_in_a_bundle_executes_nothing_of_it(
    executed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.TIERS, "quick", plan.Tier("quick", 10, 0.2))
    done = CliRunner().invoke(app, ["bench", ".", "--tier", "quick", "--runtime", "onnxruntime"])
    assert (done.exit_code, executed()) == (0, [])


def test_an_artifact_from_elsewhere_is_tried_by_a_process_that_executes_nothing_of_the_bundle(
    executed: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITEHRNET_STAGE2_CACHE", str(tmp_path / "cache"))  # nothing is known there
    content = Path("stage2.onnx").read_bytes() + b"\x62\x00"  # an unknown field, which ONNX Runtime passes over
    open_session(changed(Path(), "stage2.onnx", content), "onnxruntime")
    assert list((tmp_path / "cache/known").iterdir())
    assert executed() == []


def test_parity_on_this_machine_as_a_device_executes_nothing_of_the_bundle(
    executed: Callable[[], list[str]], runner: RunnerBuild
) -> None:
    bundle = Bundle.open(Path())
    with parse_device("local") as device:
        for runtime in ("executorch", "onnxruntime"):
            with open_device_session(bundle, runtime, device) as session:
                session.run_codes(bundle.golden().x[:1])
    assert executed() == []


def test_core_ml_is_asked_by_a_process_that_executes_nothing_of_the_bundle(executed: Callable[[], list[str]]) -> None:
    with pytest.raises(PredictionError):  # there is no package
        predict(Path("missing.mlpackage"), "cpu", {"features": np.zeros((1, 4, 16, 24), np.float32)}, ["y1"])
    assert executed() == []


def test_fetching_a_wheel_runs_the_installed_pip(
    executed: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheel = Wheel(name="numpy", version="0.0.0", platform="manylinux_2_28_aarch64", sha256="0" * 64)
    with pytest.raises(DeviceError, match=r"fetching numpy==0\.0\.0 with pip failed"):
        wheel.unpacked(tmp_path / "cache")
    assert executed() == []


def test_scenes_are_drawn_by_processes_that_execute_nothing_of_the_folder(
    executed: Callable[[], list[str]], tmp_path: Path
) -> None:
    rendered("train", count=1, seed=0, folder=tmp_path / "pool", workers=1)
    assert executed() == []


def test_a_python_on_a_board_or_under_the_emulator_leaves_its_current_folder_out() -> None:
    with parse_device("ssh:board") as device:
        assert "PYTHONSAFEPATH=1" in device.python
    assert "-P" in ArmPython(root=Path("root"), site_packages=()).command()


def test_no_module_starts_a_python_in_words_of_its_own() -> None:
    rooms = [Path(litehrnet_stage2.__path__[0], room) for room in ("reference", "converters", "runtime", "apps")]
    modules = [path for room in rooms for path in room.rglob("*.py")]
    own = [path.name for path in modules if "sys.executable" in path.read_text()]
    assert sorted(own) == ["child.py", "python_runner.py"]  # the second names it in a sentence


def test_libraries_of_a_command_start_their_processes_without_the_current_folder(
    executed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a compiler of torch or a pool of `multiprocessing` does, with `-m` and no flag of ours."""
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # put back afterwards
    words = [sys.executable, "-m", "pip", "--version"]
    monkeypatch.setattr(cli.console, "run", lambda _: subprocess.run(words, capture_output=True).returncode)
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert executed() == []
