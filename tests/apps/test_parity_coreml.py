"""`stage2 parity` and `stage2 bench` on Core ML's runtimes, as a user runs them on Linux."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.reference.golden import codes_sha256


def stage2(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def parity(bundle: Path, *arguments: str | Path) -> tuple[int, list[dict[str, Any]]]:
    done = stage2("parity", bundle, *arguments, "--json", "-")
    return done.exit_code, json.loads(done.stdout)


def with_golden(bundle: Path, folder: Path, forge: Callable[..., None], **arrays: Any) -> Path:
    """A copy of a bundle with other golden arrays, and a manifest that agrees."""
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    with np.load(copy / "golden.npz") as golden:
        kept = {name: golden[name] for name in golden.files}
    whole = kept | {name.replace("_", "/"): array for name, array in arrays.items()}
    np.savez(copy / "golden.npz", **whole)
    digest = codes_sha256(whole["output/y1"], whole["output/y2"])
    forge(copy, lambda values: values.update(golden_sha256=digest), files=["golden.npz"])
    return copy


def test_the_exact_package_is_checked_by_default(apple_bundle: Path) -> None:
    code, results = parity(apple_bundle)
    assert code == 0
    assert [(one["kind"], one["session"]["runtime"], one["passed"]) for one in results] == [
        ("codes", "golden", True),
        ("codes", "coreml-eval", True),
    ]
    assert len({one["codes_sha256"] for one in results}) == 1


def test_without_coremltools_the_default_leaves_it_out(apple_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, results = parity(apple_bundle)
    assert code == 0
    assert [one["session"]["runtime"] for one in results] == ["golden"]


def test_codes_and_fidelity_are_told_apart_in_json(apple_bundle: Path) -> None:
    code, (codes, fidelity) = parity(apple_bundle, "--runtime", "coreml-eval", "--runtime", "coreml-eval-ane")
    assert code == 0
    assert (codes["kind"], codes["images"]) == ("codes", 7)
    assert (fidelity["kind"], fidelity["images"], fidelity["passed"]) == ("fidelity", 2, True)
    for name in ("y1", "y2"):
        assert codes["outputs"][name]["mismatches"] == 0
        output = fidelity["outputs"][name]
        assert output["passed"]
        assert output["bound_db"] == pytest.approx(output["golden_sqnr_db"] - 0.5)
        assert output["sqnr_db"] >= output["bound_db"]


def test_both_tables_are_printed(apple_bundle: Path) -> None:
    done = stage2("parity", apple_bundle, "--runtime", "coreml-eval", "--runtime", "coreml-eval-ane")
    assert done.exit_code == 0
    assert "Parity with the golden codes, 7 inputs" in done.stdout
    assert "Fidelity to the float network, 2 inputs" in done.stdout
    assert done.stdout.count("pass") == 2


def test_a_lost_fidelity_exits_1(apple_bundle: Path, tmp_path: Path, forge: Callable[..., None]) -> None:
    """A float network that nothing here comes near, while the golden codes do."""
    with np.load(apple_bundle / "golden.npz") as golden:
        spec = json.loads((apple_bundle / "manifest.json").read_text())["outputs"][0]
        near = (golden["output/y1"][:2].astype(np.float32) - spec["zero_point"]) * spec["scale"]
    copy = with_golden(apple_bundle, tmp_path, forge, float_y1=near.astype(np.float16))
    code, (result,) = parity(copy, "--runtime", "coreml-eval-ane")
    assert code == 1
    assert not result["passed"]
    assert not result["outputs"]["y1"]["passed"]
    assert result["outputs"]["y2"]["passed"]
    assert "fail" in stage2("parity", copy, "--runtime", "coreml-eval-ane").stdout


def test_other_golden_codes_exit_1(apple_bundle: Path, tmp_path: Path, forge: Callable[..., None]) -> None:
    with np.load(apple_bundle / "golden.npz") as golden:
        y1 = golden["output/y1"].copy()
    y1[0, 0, 0, 0] ^= 1
    code, (result,) = parity(with_golden(apple_bundle, tmp_path, forge, output_y1=y1), "--runtime", "coreml-eval")
    assert code == 1
    assert (result["outputs"]["y1"]["mismatches"], result["outputs"]["y1"]["max_lsb"]) == (1, 1)


def test_fidelity_is_for_the_golden_inputs_alone(apple_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 16, 24), np.float32))
    done = stage2("parity", apple_bundle, "--runtime", "coreml-eval-ane", "--inputs", tmp_path / "x.npy")
    assert done.exit_code == 2


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac Core ML does predict")
@pytest.mark.parametrize("command", ["parity", "bench"])
def test_core_ml_itself_exits_2_off_apple_and_says_what_it_needs_and_what_to_run_there(
    apple_bundle: Path, command: str, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    main = "from litehrnet_stage2.apps.cli import main; main()"
    done = python(main, command, apple_bundle, "--runtime", "coreml", COLUMNS="1000")
    assert done.returncode == 2
    assert "Core ML itself needs a Mac with macOS 14 or later" in done.stderr
    assert f"run `stage2 {command} {apple_bundle} --runtime coreml` there" in done.stderr
    assert "Traceback" not in done.stderr


def test_core_ml_is_timed_alone(apple_bundle: Path) -> None:
    assert stage2("bench", apple_bundle, "--runtime", "coreml", "--runtime", "executorch").exit_code == 2
