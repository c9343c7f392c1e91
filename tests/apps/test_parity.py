"""`stage2 parity`: exit 0, 1 or 2, tables for a person and JSON for a program."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.apps import check_bundle
from litehrnet_stage2.reference.golden import codes_sha256
from litehrnet_stage2.runtime import Bundle, check_parity, open_session
from litehrnet_stage2.runtime.devices import DeviceFacts

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def altered(damaged: Path, forge: Callable[..., None]) -> Path:
    """A bundle with three golden codes changed, and every hash of them with them."""
    with np.load(damaged / "golden.npz") as arrays:
        golden = dict(arrays)
    golden["output/y1"][0, 0, 0, :3] ^= np.int8(2)
    np.savez(damaged / "golden.npz", **golden)
    digest = codes_sha256(golden["output/y1"], golden["output/y2"])
    forge(damaged, lambda values: values.update(golden_sha256=digest), files=["golden.npz"])
    return damaged


def test_every_runtime_of_the_bundle_is_checked_and_equal_codes_are_exit_0(
    stage2: Command, small_bundle: Path, tmp_path: Path
) -> None:
    done = stage2("parity", small_bundle, "--json", tmp_path / "parity.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "parity.json").read_text())
    ran = {result["session"]["runtime"] for result in results}
    assert ran == {"golden", "executorch", "litert", "onnxruntime", "coreml-eval"}
    digest = json.loads((small_bundle / "manifest.json").read_text())["golden_sha256"]
    for result in results:
        assert result["passed"] is True
        assert result["codes_sha256"] == result["golden_sha256"] == digest
        assert result["outputs"]["y1"] == {
            "compared": 7 * 4 * 16 * 24,
            "mismatches": 0,
            "max_lsb": 0,
            "histogram": {"0": 7 * 4 * 16 * 24},
            "sqnr_db": None,
        }
    assert "Parity with the golden codes, 7 inputs" in done.stdout


@pytest.mark.parametrize("runtime", ["golden", "onnxruntime"])
def test_a_gate_that_fails_is_exit_1_with_what_differs(runtime: str, stage2: Command, altered: Path) -> None:
    done = stage2("parity", altered, "--runtime", runtime, "--json", "-")
    assert done.returncode == 1, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["passed"] is False
    assert (result["outputs"]["y1"]["mismatches"], result["outputs"]["y2"]["mismatches"]) == (3, 0)
    assert result["outputs"]["y1"]["max_lsb"] == 2
    assert result["outputs"]["y1"]["sqnr_db"] > 20
    assert "error" not in done.stderr


def test_a_person_is_shown_the_mismatches(stage2: Command, altered: Path) -> None:
    done = stage2("parity", altered, "--runtime", "onnxruntime")
    assert done.returncode == 1
    (row,) = (line for line in done.stdout.splitlines() if line.startswith(" onnxruntime"))
    _, _, output, compared, mismatches, largest, _, decibel, _ = row.split()
    assert (output, compared, mismatches, largest, decibel) == ("y1", "10,752", "3", "2,", "dB")


def test_a_changed_file_is_exit_2(stage2: Command, damaged: Path) -> None:
    (damaged / "stage2.onnx").write_bytes(b"no model")
    done = stage2("parity", damaged, "--runtime", "onnxruntime")
    assert done.returncode == 2
    assert "stage2.onnx is 8 bytes, the manifest says" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_users_inputs_are_snapped_and_flips_are_told_apart(
    stage2: Command, small_bundle: Path, small_features: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", small_features[:2])
    arguments = ("parity", small_bundle, "--runtime", "onnxruntime", "--inputs", tmp_path / "x.npy")
    done = stage2(*arguments, "--json", tmp_path / "parity.json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "parity.json").read_text())
    assert result["images"] == 2
    assert result["outputs"]["y1"]["mismatches"] == 0
    assert result["flips"]["inputs"] == small_features[:2].size
    assert "without snapping" in done.stdout


def test_inputs_of_another_size_than_the_artifacts_are_exit_2(
    stage2: Command, small_bundle: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 8, 8), np.float32))
    done = stage2("parity", small_bundle, "--runtime", "onnxruntime", "--inputs", tmp_path / "x.npy")
    assert done.returncode == 2
    assert "features must have shape [N,4,16,24], N >= 1, but have [1, 4, 8, 8]" in done.stderr


def test_an_empty_device_is_not_this_machine(stage2: Command, small_bundle: Path) -> None:
    """As a script has it whose variable is empty."""
    done = stage2("parity", small_bundle, "--device", "")
    assert done.returncode == 2
    assert "unknown device '': the devices are local, " in done.stderr


def test_a_file_of_a_bundle_is_answered_with_its_folder(stage2: Command, small_bundle: Path) -> None:
    done = stage2("parity", small_bundle / "stage2.onnx")
    assert done.returncode == 2
    assert f"stage2.onnx is a file of a bundle: give its folder, {small_bundle}" in done.stderr


def test_names_from_a_file_or_a_device_are_shown_as_they_are(
    small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`[/]` would end a style that nobody began, which rich refuses."""
    bundle = Bundle.open(small_bundle)
    result = check_parity(open_session(bundle, "golden"), bundle.golden())
    session = dataclasses.replace(result.session, version="[/]1")
    odd = dataclasses.replace(
        result,
        session=session,
        outputs={"[/]y": result.outputs["y1"]},
        device=DeviceFacts(device="[/]d", emulated=False, arch="[b]"),
    )
    check_bundle.show([odd])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("[/]1", "[/]y", "[/]d", "[b]"))
