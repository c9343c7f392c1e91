"""`stage2 convert`, on a checkpoint and calibration data of the user's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from litehrnet_stage2.apps.features_file import load_features
from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.runtime import Bundle

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_json_on_standard_output_is_the_manifest_and_nothing_else(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    done = stage2("convert", *small_checkpoint, "--targets", "onnx,coreml", "--out", out, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "manifest.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_json_in_a_file_comes_with_a_table_for_a_person(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "a [/b] [red] bundle"  # which is no markup
    done = stage2("convert", *small_checkpoint, "--targets", "onnx", "--out", out, "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["artifacts"] == {"onnx": "stage2.onnx"}
    assert "stage2.onnx" in done.stdout
    assert f"Bundle: {out}" in done.stdout
    assert "int8 against the float network, signal to noise: y1 " in done.stdout
    assert "Warning" not in done.stderr


def test_progress_names_each_step_and_library_warnings_stay_away(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    done = stage2("convert", *small_checkpoint, "--targets", "coreml", "--out", tmp_path / "bundle")
    steps = done.stderr.splitlines()
    assert all(step.endswith(" ...") for step in steps), steps
    assert {"calibrating on 4 inputs ...", "converting to coreml ..."} <= set(steps)


def test_a_quantised_checkpoint_is_taken_as_it_is(
    stage2: Command, small_checkpoint: list[str], small_features: NDArray[np.float32], tmp_path: Path
) -> None:
    """Its ranges are its own, whatever the calibration file would have made of them."""
    model = QATStage2.from_float(load_checkpoint(Path(small_checkpoint[1])))
    save_checkpoint(model.calibrate(torch.from_numpy(small_features)), tmp_path / "qat.safetensors")
    np.save(tmp_path / "wider.npy", small_features * 100)
    done = stage2(
        "convert",
        "--checkpoint",
        tmp_path / "qat.safetensors",
        "--calibration",
        tmp_path / "wider.npy",
        "--targets",
        "onnx",
        "--out",
        tmp_path / "bundle",
    )
    assert done.returncode == 0, done.stderr
    assert Bundle.open(tmp_path / "bundle").manifest.input.scale == pytest.approx(float(model.input.scale))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--targets", "onnx,tflite"], "unknown target 'tflite': the targets are executorch, onnx"),
        (["--checkpoint", "{folder}/none.safetensors"], "no checkpoint at"),
        (["--calibration", "{folder}/three.npy"], "must hold features of shape [N,4,H,W], N >= 1, but has shape [2, 3"),
        (["--calibration", "{folder}/odd.npy"], "even height and width, but are 15x24"),
        (["--out", "{folder}/mine"], "mine exists and is no bundle: give --out a new folder"),
    ],
)
def test_a_users_mistake_writes_nothing(
    arguments: list[str], what: str, stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "three.npy", np.zeros((2, 3, 16, 24), np.float32))
    np.save(tmp_path / "odd.npy", np.ones((2, 4, 15, 24), np.float32))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    before = sorted(tmp_path.rglob("*"))
    done = stage2(
        "convert",
        *small_checkpoint,
        "--out",
        tmp_path / "bundle",
        "--targets",
        "onnx",
        *(argument.format(folder=tmp_path) for argument in arguments),
    )
    assert done.returncode == 2, done.stderr
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_who_brings_a_checkpoint_of_other_channels_is_told_to_bring_features(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    """The photographs that ship become features of 32 channels."""
    done = stage2("convert", *small_checkpoint[:2], "--out", tmp_path / "bundle")
    assert done.returncode == 2
    assert "the checkpoint takes features of 4 channels" in done.stderr
    assert "--calibration" in done.stderr


# features as a user brings them


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_of_any_float_are_read_as_float32(dtype: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 4, 2, 2), 0.5, dtype))
    features = load_features(tmp_path / "x.npy", 4)
    assert features.dtype == np.float32
    assert (features == 0.5).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2, 2), np.float32), r"shape \[N,4,H,W\], N >= 1, but has shape \[4, 2, 2\]"),
        (np.zeros((0, 4, 2, 2), np.float32), r"but has shape \[0, 4, 2, 2\]"),
        (np.zeros((1, 4, 2, 2), np.int16), "must hold float16, float32 or float64, but holds int16"),
        (np.full((1, 4, 2, 2), np.nan), "NaN, infinite or too large"),
        (np.full((1, 4, 2, 2), np.inf, np.float32), "NaN, infinite or too large"),
        (np.full((1, 4, 2, 2), 1e300), "NaN, infinite or too large for float32"),
        (np.array([[{}]]), "holds object, and only plain numbers are read"),
    ],
)
def test_features_that_cannot_be_used_say_why(array: NDArray[Any], message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        load_features(tmp_path / "x.npy", 4)


def test_a_truncated_file_and_a_folder_are_no_features(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 2, 2), np.float32))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"damaged or cut short"):
        load_features(tmp_path / "cut.npy", 4)
    with pytest.raises(ValueError, match="no file"):
        load_features(tmp_path, 4)


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 4, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"is an .npz: give the one array in it"):
        load_features(tmp_path / "x.npz", 4)
