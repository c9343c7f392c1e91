"""`stage2 convert`, on a checkpoint and calibration data of the user's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray

from litehrnet_stage2.apps.convert import parse_size
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
    artifacts = json.loads((tmp_path / "result.json").read_text())["artifacts"]
    assert {name: entry["file"] for name, entry in artifacts.items()} == {"onnx": "stage2.onnx"}
    assert "stage2.onnx" in done.stdout
    assert f"Bundle: {out}" in done.stdout
    assert "int8 against the float network, signal to noise: y1 " in done.stdout
    assert "Warning" not in done.stderr


def test_progress_names_each_step_and_library_warnings_stay_away(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    done = stage2("convert", *small_checkpoint, "--targets", "coreml", "--out", tmp_path / "bundle")
    own_warning = "warning: these inputs do not look like"  # the test network has made-up statistics
    steps = [line for line in done.stderr.splitlines() if not line.startswith(own_warning)]
    assert all(step.endswith(" ...") for step in steps), steps
    assert {"calibrating on 4 inputs ...", "converting to coreml ..."} <= set(steps)


def test_features_unlike_those_of_training_are_warned_of(
    stage2: Command, small_checkpoint: list[str], small_features: NDArray[np.float32], tmp_path: Path
) -> None:
    np.save(tmp_path / "pixels.npy", 255 * small_features)
    arguments = [*small_checkpoint[:3], tmp_path / "pixels.npy", "--targets", "onnx", "--out", tmp_path / "bundle"]
    done = stage2("convert", *arguments)
    assert done.returncode == 0, done.stderr
    assert "warning: these inputs do not look like those that the network was trained on" in done.stderr
    assert "standard deviations in the mean" in done.stderr
    first, second = Bundle.open(tmp_path / "bundle").manifest.details["calibration_statistics"]
    assert [first["module"], second["module"]] == ["transition.b1_keep.bn", "transition.b2_down.pointwise.bn"]
    assert min(first["std_ratio"], second["std_ratio"]) > 20


def test_raised_floors_give_what_enters_a_silu_finer_codes(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    scales = []
    for name, more in (("plain", ()), ("raised", ("--silu-floor", "-1"))):
        done = stage2("convert", *small_checkpoint, "--targets", "onnx", "--out", tmp_path / name, *more)
        assert done.returncode == 0, done.stderr
        function = Bundle.open(tmp_path / name).function()
        read = {node.inputs[0] for node in function.nodes if type(node).__name__ == "SiLU"}
        scales.append({tensor: function.quantization[tensor].scale for tensor in read})
    plain, raised = scales
    assert all(raised[tensor] <= plain[tensor] for tensor in plain)
    assert any(raised[tensor] < 0.9 * plain[tensor] for tensor in plain)


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
    assert Bundle.open(tmp_path / "bundle").manifest.inputs[0].scale == pytest.approx(float(model.input.scale))


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--targets", "onnx,tflite"], "unknown target 'tflite': the targets are executorch, "),
        (["--checkpoint", "{folder}/none.safetensors"], "no checkpoint at"),
        (["--calibration", "{folder}/three.npy"], "must hold features of shape [N,4,H,W], N >= 1, but has shape [2, 3"),
        (["--calibration", "{folder}/odd.npy"], "even height and width, but are 15x24"),
        (["--calibration", "{folder}/zeros.npy"], "zeros.npy to calibrate on must hold what the network will see, but"),
        (["--out", "{folder}/mine"], "mine exists and is no bundle: give --out a new folder"),
    ],
)
def test_a_users_mistake_writes_nothing(
    arguments: list[str], what: str, stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "three.npy", np.zeros((2, 3, 16, 24), np.float32))
    np.save(tmp_path / "zeros.npy", np.zeros((2, 4, 16, 24), np.float32))
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


@pytest.fixture
def tuned(small_checkpoint: list[str], small_features: NDArray[np.float32], tmp_path: Path) -> Path:
    """A fine-tuned checkpoint that has kept its features."""
    model = QATStage2.from_float(load_checkpoint(Path(small_checkpoint[1])))
    save_checkpoint(model.calibrate(torch.from_numpy(small_features)), tmp_path / "q.safetensors", sqnr_db=(21, 20.5))
    return tmp_path / "q.safetensors"


def test_a_fine_tuned_checkpoint_is_built_for_its_own_maps_with_its_own_golden_inputs(
    stage2: Command, tuned: Path, small_features: NDArray[np.float32], tmp_path: Path
) -> None:
    done = stage2("convert", "--checkpoint", tuned, "--targets", "onnx", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "building for features of 16x24 ..." in done.stderr
    assert "fine-tuned to 21.0 dB in Y1 and 20.5 dB in Y2 against its float network" in done.stderr
    q = Bundle.open(tmp_path / "bundle").function().input_quantization
    assert np.array_equal(_golden_inputs(tmp_path / "bundle")[:3], q.quantize(small_features[:3]))


def test_a_size_asked_for_is_what_is_built(stage2: Command, tuned: Path, tmp_path: Path) -> None:
    command = ("convert", "--checkpoint", tuned, "--targets", "onnx", "--size", "32x20")
    done = stage2(*command, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert _golden_inputs(tmp_path / "bundle").shape[1:] == (4, 32, 20)


def _golden_inputs(bundle: Path) -> NDArray[np.int8]:
    opened = Bundle.open(bundle)
    return opened.function().input_quantization.quantize(opened.golden().x)


def test_a_tuned_checkpoint_that_kept_no_features_is_built_for_the_size_given_and_for_none_other(
    stage2: Command, tuned: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(tuned)
    assert isinstance(model, QATStage2)
    model.size = model.examples = None
    save_checkpoint(model, tuned)
    command = ("convert", "--checkpoint", tuned, "--targets", "onnx", "--out", tmp_path / "bundle")
    done = stage2(*command)
    assert done.returncode == 2
    assert "the size to build for is not known: give --size HxW" in done.stderr
    done = stage2(*command, "--size", "8x12")
    assert done.returncode == 0, done.stderr
    assert _golden_inputs(tmp_path / "bundle").shape[1:] == (4, 8, 12)


def test_the_ranges_of_a_float_checkpoint_are_never_the_examples(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    for extra in ([], ["--size", "16x24"]):
        done = stage2("convert", *small_checkpoint[:2], *extra, "--out", tmp_path / "bundle")
        assert done.returncode == 2
        assert "ranges come from features of 4 channels: give --calibration features.npy" in done.stderr


def test_a_checkpoint_saved_before_it_was_calibrated_is_named_with_the_call(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    save_checkpoint(QATStage2.from_float(load_checkpoint(Path(small_checkpoint[1]))), tmp_path / "q.safetensors")
    done = stage2("convert", "--checkpoint", tmp_path / "q.safetensors", "--out", tmp_path / "bundle")
    assert done.returncode == 2
    assert "q.safetensors is a QATStage2 whose ranges were never set: call stage2.calibrate(features)" in done.stderr


@pytest.mark.parametrize("size", ["64", "63x128", "0x2", "64x", "-64x128"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not HxW"):
        parse_size(size)


def test_a_folder_and_a_pattern_calibrate_like_a_file(
    stage2: Command, small_checkpoint: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "[1] x"
    folder.mkdir()
    shutil.copy(small_checkpoint[3], folder / "a.npy")
    bundles = [tmp_path / name for name in ("file", "folder", "pattern")]
    for where, out in zip((folder / "a.npy", folder, f"{tmp_path}/?1? x/*.npy"), bundles, strict=True):
        done = stage2("convert", *small_checkpoint[:2], "--calibration", where, "--targets", "onnx", "--out", out)
        assert done.returncode == 0, done.stderr
    assert len({(bundle / "stage2.onnx").read_bytes() for bundle in bundles}) == 1


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
        load_features(tmp_path / "none", 4)


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 4, 2, 2), np.float32))
    with pytest.raises(ValueError, match=r"is an .npz: give the one array in it"):
        load_features(tmp_path / "x.npz", 4)
