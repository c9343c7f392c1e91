"""Reading saved Core ML packages: what is in them, and everything that gets a package refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.proto import MIL_pb2, Model_pb2

from litehrnet_stage2.runtime.coreml.evaluate import evaluate
from litehrnet_stage2.runtime.coreml.mil import MilProgram

logging.getLogger("coremltools").setLevel(logging.ERROR)
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
FEATURES = {"features": np.random.default_rng(0).standard_normal((1, 4, 6, 8), np.float32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 2, 1))
    exported = torch.export.export(module.eval(), (torch.zeros(1, 4, 6, 8),)).run_decompositions({})
    model = ct.convert(
        exported,
        inputs=[ct.TensorType("features", shape=(1, 4, 6, 8))],
        outputs=[ct.TensorType("logits")],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    path = tmp_path_factory.mktemp("saved") / "small.mlpackage"
    model.save(str(path))
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "small.mlpackage"))


def edit(package: Path, change: Callable[[Any], None]) -> None:
    """Change the package's specification in place; `change` gets the model."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


def block(model: Any) -> Any:
    (only,) = model.mlProgram.functions["main"].block_specializations.values()
    return only


def operation(model: Any, kind: str) -> Any:
    return next(item for item in block(model).operations if item.type == kind)


def stored_weight(model: Any) -> Any:
    """The first constant that lies in the weight file."""
    values = (item.attributes["val"] for item in block(model).operations if item.type == "const")
    return next(value for value in values if value.WhichOneof("value") == "blobFileValue")


def test_program_has_the_names_shapes_types_and_operators_that_were_saved(package: Path) -> None:
    program = MilProgram.load(package)
    assert [str(tensor) for tensor in program.inputs] == ["features float32[1, 4, 6, 8]"]
    assert [str(tensor) for tensor in program.outputs] == ["logits float32[1, 2, 6, 8]"]
    assert program.operator_counts() == {"conv": 2, "silu": 1}
    assert [item.type for item in program.operations] == ["conv", "silu", "conv"]
    assert sorted(v.shape for v in program.constants.values() if v.ndim == 4) == [(2, 8, 1, 1), (8, 4, 3, 3)]


def test_package_is_all_that_is_read(package: Path, tmp_path: Path) -> None:
    expected = evaluate(MilProgram.load(package), FEATURES)["logits"]
    moved = Path(shutil.copytree(package, tmp_path / "elsewhere" / "renamed.mlpackage"))
    shutil.rmtree(package)
    np.testing.assert_array_equal(evaluate(MilProgram.load(moved), FEATURES)["logits"], expected)


def test_flipped_weight_changes_the_output(package: Path) -> None:
    expected = evaluate(MilProgram.load(package), FEATURES)["logits"]
    content = bytearray((package / WEIGHTS).read_bytes())
    content[131] ^= 0x40  # in the exponent of the first constant's first value
    (package / WEIGHTS).write_bytes(content)
    assert not np.array_equal(evaluate(MilProgram.load(package), FEATURES)["logits"], expected)


def test_weight_file_cut_short_anywhere_is_refused(package: Path) -> None:
    content = (package / WEIGHTS).read_bytes()
    for cut in range(0, len(content), 50):
        (package / WEIGHTS).write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"cut short"):
            MilProgram.load(package)


def test_damaged_specification_is_refused_or_read_but_nothing_else(package: Path) -> None:
    rng = np.random.default_rng(1)
    content = (package / MODEL).read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (package / MODEL).write_bytes(damaged)
        try:
            evaluate(MilProgram.load(package), FEATURES)
        except ValueError:
            refused += 1
    assert refused > 150


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"not a model"])
def test_file_that_is_no_specification_is_refused(package: Path, content: bytes) -> None:
    (package / MODEL).write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.mlmodel (is not a Core ML specification|holds no model)"):
        MilProgram.load(package)


@pytest.mark.parametrize("missing", [MODEL, WEIGHTS, Path("Manifest.json")])
def test_missing_file_is_named(package: Path, missing: Path) -> None:
    (package / missing).unlink()
    with pytest.raises(ValueError, match=missing.name):
        MilProgram.load(package)


@pytest.mark.parametrize("path", ["nothing.mlpackage", "small.mlpackage/Manifest.json"])
def test_what_is_no_package_folder_is_refused(package: Path, path: str) -> None:
    with pytest.raises(ValueError, match=r"is not an \.mlpackage folder|missing from the package"):
        MilProgram.load(package.parent / path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"rootModelIdentifier": "x", "itemInfoEntries": {}}'])
def test_manifest_that_names_no_model_is_refused(package: Path, content: str) -> None:
    (package / "Manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"Manifest\.json does not say where"):
        MilProgram.load(package)


@pytest.mark.parametrize("inside", [MODEL, WEIGHTS, WEIGHTS.parent, Path("Manifest.json")])
def test_symbolic_link_out_of_the_package_is_refused(package: Path, tmp_path: Path, inside: Path) -> None:
    outside = tmp_path / "outside"
    (package / inside).rename(outside)
    (package / inside).symlink_to(outside)
    with pytest.raises(ValueError, match=r"outside of the package .*: refused"):
        MilProgram.load(package)


def test_symbolic_link_within_the_package_is_followed(package: Path) -> None:
    (package / WEIGHTS).rename(package / "elsewhere.bin")
    (package / WEIGHTS).symlink_to(package / "elsewhere.bin")
    assert MilProgram.load(package).operator_counts() == {"conv": 2, "silu": 1}


@pytest.mark.parametrize("path", ["../../../outside", "/etc/hostname"])
def test_manifest_path_out_of_the_package_is_refused(package: Path, path: str) -> None:
    (package.parent / "outside").write_bytes((package / MODEL).read_bytes())
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"outside of the package|missing from the package"):
        MilProgram.load(package)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("@model_path/../../../outside.bin", r"outside of the package"),
        ("@model_path/weights", r"is not a file"),
        ("@model_path/weights/other.bin", r"missing from the package"),
        ("@model_path/weights/\0.bin", r"missing from the package"),
        ("/etc/hostname", r"only @model_path/\.\.\. is read"),
        ("", r"only @model_path/\.\.\. is read"),
    ],
)
def test_weight_path_out_of_the_package_or_to_no_file_is_refused(package: Path, name: str, message: str) -> None:
    (package.parent / "outside.bin").write_bytes((package / WEIGHTS).read_bytes())

    def change(model: Any) -> None:
        stored_weight(model).blobFileValue.fileName = name

    edit(package, change)
    with pytest.raises(ValueError, match=message):
        MilProgram.load(package)


def rename_an_input(model: Any) -> None:
    operation(model, "silu").inputs["x"].arguments[0].name = "nowhere"


def define_twice(model: Any) -> None:
    operation(model, "silu").outputs[0].name = "features"


def return_what_is_not_there(model: Any) -> None:
    block(model).outputs[0] = "nowhere"


def describe_another_output(model: Any) -> None:
    model.description.output[0].name = "labels"


def nest_a_block(model: Any) -> None:
    operation(model, "silu").blocks.add()


def drop_the_function(model: Any) -> None:
    del model.mlProgram.functions["main"]


def change_the_operator_set(model: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def make_it_a_neural_network(model: Any) -> None:
    model.neuralNetwork.SetInParent()


def change_a_weights_shape(model: Any) -> None:
    stored_weight(model).type.tensorType.dimensions[0].constant.size = 3


def change_a_weights_type(model: Any) -> None:
    stored_weight(model).type.tensorType.dataType = MIL_pb2.DataType.FLOAT16


def change_a_weights_rank(model: Any) -> None:
    stored_weight(model).type.tensorType.rank = 3


def leave_a_weights_length_open(model: Any) -> None:
    stored_weight(model).type.tensorType.dimensions[0].unknown.variadic = False


def move_a_weight(model: Any) -> None:
    stored_weight(model).blobFileValue.offset += 64


def use_four_bits(model: Any) -> None:
    stored_weight(model).type.tensorType.dataType = MIL_pb2.DataType.INT4


def use_an_unknown_type(model: Any) -> None:
    stored_weight(model).type.tensorType.dataType = 77


def return_a_list(model: Any) -> None:
    operation(model, "silu").outputs[0].type.listType.length.constant.size = 1


def drop_values(model: Any) -> None:
    constants = (item.attributes["val"] for item in block(model).operations if item.type == "const")
    next(c for c in constants if c.immediateValue.tensor.HasField("ints")).immediateValue.tensor.ints.values.pop()


def move_values_to_another_field(model: Any) -> None:
    constants = (item.attributes["val"] for item in block(model).operations if item.type == "const")
    next(c for c in constants if c.immediateValue.tensor.HasField("ints")).immediateValue.tensor.floats.values[:] = [
        1.0
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_an_input, r"operator 'silu' \(output '.*'\) reads 'nowhere', but nothing before it defines"),
        (define_twice, r"defines 'features', but that is defined before"),
        (return_what_is_not_there, r"returns 'nowhere', but no operator defines that"),
        (describe_another_output, r"description has outputs \['labels'\], but its program has \['logits'\]"),
        (nest_a_block, r"'silu' .* holds blocks of its own"),
        (drop_the_function, r"has no function 'main'; it has none"),
        (change_the_operator_set, r"has no operator set 'CoreML99'; it has CoreML7"),
        (make_it_a_neural_network, r"holds neuralNetwork, but only an mlProgram"),
        (change_a_weights_shape, r"holds \d+ bytes, but shape \(3, .*\) of float32 takes \d+"),
        (change_a_weights_type, r"holds float32, but the program declares float16"),
        (change_a_weights_rank, r"'const' .* has \d dimensions but rank 3"),
        (leave_a_weights_length_open, r"a constant has all its lengths"),
        (move_a_weight, r"at offset \d+ .* damaged"),
        (use_four_bits, r"'const' .* holds INT4, but only BOOL, STRING, FLOAT16"),
        (use_an_unknown_type, r"'const' .* holds 77, but only"),
        (return_a_list, r"has a listType, but only tensors"),
        (drop_values, r"does not hold what its type int32\[\d\] says"),
        (move_values_to_another_field, r"is int32 but has its values in floats, not in ints"),
    ],
)
def test_specification_that_does_not_add_up_is_refused(
    package: Path, change: Callable[[Any], None], message: str
) -> None:
    edit(package, change)
    with pytest.raises(ValueError, match=message):
        MilProgram.load(package)


def test_missing_coremltools_names_what_to_install(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '.\[convert\]'"):
        MilProgram.load(package)
