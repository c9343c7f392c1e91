"""A bundle appears whole or not at all, and takes the place of nothing but a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.converters import to_onnx
from litehrnet_stage2.converters.coverage import CoverageError
from litehrnet_stage2.converters.write_bundle import FloatOutputs, write_bundle
from litehrnet_stage2.reference.contract.manifest import BundleError, Manifest
from litehrnet_stage2.reference.freeze import Proof
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime import Bundle

Write = Callable[..., Manifest]


@pytest.fixture
def write(
    small_frozen: tuple[IntegerFunction, Proof], small_network: FloatOutputs, small_features: NDArray[np.float32]
) -> Write:
    """Write a bundle of the small Stage2 somewhere: the ONNX artifact alone, which takes no time."""

    def run(out: Path, *, images: int = 1, targets: tuple[str, ...] = ("onnx",), **options: Any) -> Manifest:
        return write_bundle(
            *small_frozen, small_features[:images], out, float_network=small_network, targets=targets, **options
        )

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_whole(folder: Path) -> None:
    """Every file of the manifest is there with its hash, and nothing else."""
    bundle = Bundle.open(folder)
    assert set(content(folder)) == {*bundle.manifest.files, "manifest.json", "manifest.sha256"}
    for name in bundle.manifest.files:
        bundle.read(name)


# what is in it


def test_it_holds_the_artifacts_the_golden_codes_the_function_and_the_manifest(bundle_folder: Path) -> None:
    assert_whole(bundle_folder)
    assert {path.name for path in bundle_folder.iterdir()} == {
        "function.npz",
        "golden",
        "golden.npz",
        "manifest.json",
        "manifest.sha256",
        "stage2.mlpackage",
        "stage2.tflite",
        "stage2.onnx",
        "stage2.pte",
    }


def test_golden_inputs_are_real_zero_saturating_high_frequency_and_noise(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    golden = bundle.golden()
    assert (golden.x.dtype, golden.outputs["y1"].dtype, golden.outputs["y2"].dtype) == (np.float32, np.int8, np.int8)
    assert golden.x.shape == (7, 32, 64, 128)
    assert golden.outputs["y1"].shape == (7, 32, 64, 128)
    assert golden.outputs["y2"].shape == (7, 64, 32, 64)
    q = bundle.function().input_quantization
    codes = q.quantize(golden.x)
    np.testing.assert_array_equal(q.dequantize(codes), golden.x)
    assert [len(np.unique(image)) for image in codes[2:6]] == [1, 1, 1, 2]
    assert (golden.x[2] == 0).all()
    assert [int(image.flat[0]) for image in codes[3:5]] == [-128, 127]
    assert (codes[5, 0, :, 1:] != codes[5, 0, :, :-1]).all()
    assert len(np.unique(codes[6])) == 256


def test_the_manifest_says_what_the_bundle_holds(bundle_folder: Path, function: IntegerFunction) -> None:
    values = json.loads((bundle_folder / "manifest.json").read_text())
    assert (values["schema_version"], values["name"]) == ("2.1", "stage2")
    (inp,) = values["inputs"]
    assert (inp["name"], inp["shape"], inp["kind"]) == ("features", [1, 32, 64, 128], "float")
    assert np.float32(inp["scale"]) == function.input_quantization.scale
    assert [output["name"] for output in values["outputs"]] == ["y1", "y2"]
    assert {name: entry["file"] for name, entry in values["artifacts"].items()} == {
        "executorch": "stage2.pte",
        "litert": "stage2.tflite",
        "onnx": "stage2.onnx",
        "coreml": "stage2.mlpackage",
    }
    assert values["coverage"].keys() == values["artifacts"].keys()
    assert {"python", "torch", "executorch", "onnxruntime", "coremltools", "numpy"} <= values["versions"].keys()
    for name, entry in values["files"].items():
        data = (bundle_folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    golden = Bundle.open(bundle_folder).golden()
    codes = b"".join(y.tobytes() for y in golden.outputs.values())
    assert values["golden_sha256"] == hashlib.sha256(codes).hexdigest()


def test_the_raw_golden_files_hold_the_codes_of_the_archive(bundle_folder: Path) -> None:
    golden = Bundle.open(bundle_folder).golden()
    expected = {f"input-{i}.i8": codes.tobytes() for i, codes in enumerate(golden.inputs.values())}
    expected |= {f"output-{i}.i8": codes.tobytes() for i, codes in enumerate(golden.outputs.values())}
    assert content(bundle_folder / "golden") == expected


def test_a_tensor_may_have_a_name_that_no_file_can_have(
    small_frozen: tuple[IntegerFunction, Proof],
    small_network: FloatOutputs,
    small_features: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    function, proof = small_frozen
    awkward = dict(zip(["../y:1", "Y" * 200], function.outputs.values(), strict=True))
    renamed = dataclasses.replace(function, outputs=awkward)
    write_bundle(
        renamed, proof, small_features[:1], tmp_path / "b", float_network=small_network, targets=["executorch"]
    )
    assert_whole(tmp_path / "b")
    assert sorted(content(tmp_path / "b" / "golden")) == ["input-0.i8", "output-0.i8", "output-1.i8"]


def test_two_conversions_give_the_same_codes_and_bytes(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    assert one == two


def test_targets_that_were_not_asked_for_are_not_made(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    assert not list((tmp_path / "bundle").glob("*.pte"))
    assert Bundle.open(tmp_path / "bundle").manifest.artifacts.keys() == {"onnx"}


# whole or not at all


def failing(*arguments: object) -> None:
    path = arguments[1]
    assert isinstance(path, Path)
    path.write_bytes(b"half")
    raise CoverageError("onnx: lost an operator")


@pytest.mark.parametrize("before", ["nothing", "bundle"])
def test_a_converter_that_fails_midway_leaves_what_was_there(
    before: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before == "bundle":
        write(tmp_path / "bundle")
    left = content(tmp_path)
    monkeypatch.setattr(to_onnx, "convert", failing)
    with pytest.raises(CoverageError):
        write(tmp_path / "bundle", images=2)
    assert content(tmp_path) == left


def test_an_older_bundle_is_replaced_with_all_that_it_held(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "bundle", images=2)
    write(tmp_path / "bundle", images=1)
    assert_whole(tmp_path / "bundle")
    assert len(Bundle.open(tmp_path / "bundle").golden()) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_of_another_schema_version_may_be_replaced(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    manifest = tmp_path / "bundle/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 99}))
    write(tmp_path / "bundle")
    assert_whole(tmp_path / "bundle")


def test_an_empty_folder_may_become_a_bundle_and_parents_are_made(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    write(tmp_path / "a/b/bundle")
    assert_whole(tmp_path / "empty")
    assert_whole(tmp_path / "a/b/bundle")


def _thesis(out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("years")


def _web_app(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "Maps", "start_url": "/"}')
    (out / "index.html").write_text("<h1>Maps</h1>")


def _broken_manifest(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text("{")
    (out / "index.html").write_text("<h1>Maps</h1>")


def _file(out: Path) -> None:
    out.write_text("a file")


@pytest.mark.parametrize("make", [_thesis, _web_app, _broken_manifest, _file])
def test_what_is_no_bundle_is_never_overwritten(make: Callable[[Path], None], write: Write, tmp_path: Path) -> None:
    make(tmp_path / "mine")
    left = content(tmp_path)
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write(tmp_path / "mine")
    assert content(tmp_path) == left


def test_an_unknown_target_is_answered_with_the_known_ones(write: Write, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown target 'tflite': the targets are executorch, litert, onnx"):
        write(tmp_path / "bundle", targets=("onnx", "tflite"))
    assert not list(tmp_path.iterdir())


def test_features_of_a_wrong_shape_are_refused_before_anything_is_written(
    small_frozen: tuple[IntegerFunction, Proof], small_network: FloatOutputs, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"`features` must have shape \[N,4,16,24\]"):
        write_bundle(
            *small_frozen, np.zeros((1, 3, 8, 8), np.float32), tmp_path / "bundle", float_network=small_network
        )
    assert not list(tmp_path.iterdir())


def test_what_appears_at_the_place_during_the_conversion_is_not_overwritten(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = to_onnx.convert

    def slow(*arguments: Any) -> Any:
        _thesis(tmp_path / "bundle")
        return convert(*arguments)

    monkeypatch.setattr(to_onnx, "convert", slow)
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write(tmp_path / "bundle")
    assert content(tmp_path) == {"bundle/thesis.txt": b"years"}


SLOW = """
import sys, time
from pathlib import Path
from litehrnet_stage2.converters import to_onnx
from litehrnet_stage2.apps import cli

original = to_onnx.convert
def convert(function, path, deployment):
    coverage = original(function, path, deployment)
    print("written", flush=True)
    time.sleep(60)
    return coverage
to_onnx.convert = convert
sys.argv = ["stage2", "convert", "--targets", "onnx,coreml", *sys.argv[1:]]
cli.main()
"""


def interrupted(folder: Path, number: signal.Signals, arguments: list[str]) -> int:
    """Send a signal to a conversion that has written one of its artifacts; its exit status."""
    command = [sys.executable, "-c", SLOW, *arguments, "--out", str(folder / "bundle")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert any("stage2.onnx" in name for name in content(folder))
        os.kill(process.pid, number)
        return process.wait(60)


@pytest.mark.parametrize("before", ["nothing", "bundle"])
def test_a_run_that_is_killed_leaves_nothing_that_looks_like_a_bundle_and_the_old_one(
    before: str, write: Write, small_checkpoint: list[str], tmp_path: Path
) -> None:
    if before == "bundle":
        write(tmp_path / "bundle")
    left = content(tmp_path)
    assert interrupted(tmp_path, signal.SIGKILL, small_checkpoint) == -signal.SIGKILL
    now = content(tmp_path)
    assert {name: data for name, data in now.items() if name in left} == left
    assert not any(name.endswith("manifest.json") for name in now.keys() - left.keys())
    if before == "nothing":
        assert not (tmp_path / "bundle").exists()


def test_the_next_run_removes_what_a_killed_one_left(write: Write, small_checkpoint: list[str], tmp_path: Path) -> None:
    interrupted(tmp_path, signal.SIGKILL, small_checkpoint)
    write(tmp_path / "bundle")
    assert_whole(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_nothing_at_all(
    number: signal.Signals, small_checkpoint: list[str], tmp_path: Path
) -> None:
    assert interrupted(tmp_path, number, small_checkpoint) == 128 + number
    assert not list(tmp_path.iterdir())
