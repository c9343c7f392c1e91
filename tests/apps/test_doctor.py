"""`stage2 doctor`: what is here, what is missing, and how to add it."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
from typer.testing import CliRunner

from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.runtime import capabilities
from litehrnet_stage2.runtime.capabilities import Capability


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Capability]:
    return {(c.group, c.name): c for c in capabilities.capabilities()}


def test_runtimes_that_are_here_are_shown_with_their_version(found: dict[tuple[str, str], Capability]) -> None:
    assert found["runtime", "ONNX Runtime"].ready
    assert found["runtime", "ONNX Runtime"].detail == onnxruntime.__version__
    assert found["runtime", "ExecuTorch"].ready


def test_every_kind_of_device_and_every_watch_of_the_clock_is_judged(
    found: dict[tuple[str, str], Capability],
) -> None:
    groups = {group for group, _ in found}
    assert {"processor", "runtime", "converter", "training", "baseline", "device", "timing"} <= groups
    assert {name for group, name in found if group == "device"} >= {"local", "emulated", "ssh", "adb"}


def test_what_is_missing_comes_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "PACKAGES", (("converter", "X", ("no-such-package",), "convert"),))
    missing = next(c for c in capabilities.capabilities() if c.group == "converter")
    assert not missing.ready
    assert missing.detail == "without no-such-package"
    assert missing.remedy == "pip install -e '.[convert]'"


def test_doctor_prints_a_table_or_json(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", str(tmp_path / "doctor.json")], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    entries = json.loads((tmp_path / "doctor.json").read_text())
    assert {"group", "name", "ready", "detail", "remedy"} == set(entries[0])
    assert any(entry["name"] == "ONNX Runtime" and entry["ready"] for entry in entries)


def test_a_path_that_is_longer_than_its_column_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/opt/" + "x" * 70 + "/g++"
    odd = Capability(group="device", name="[/]", ready=True, detail=path)
    monkeypatch.setattr(capabilities, "capabilities", lambda: (odd,))
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "80"})
    assert "[/]" in done.output
    assert path in "".join(line.split("yes")[-1].strip() for line in done.output.splitlines())


def test_a_dash_is_standard_output_and_the_table_stays_away() -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "-"])
    assert {entry["group"] for entry in json.loads(done.stdout)} >= {"processor", "runtime"}
