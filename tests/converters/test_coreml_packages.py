"""What is in the packages and what is not: equal bytes from equal functions, names, and no debug mapping."""

from __future__ import annotations

import shutil
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.proto import Model_pb2

from litehrnet_stage2.converters.mlpackage import DEBUG_MAPPING, tidy
from litehrnet_stage2.converters.targets import Deployment, load_converter
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.neural_engine import NeuralEngineModule
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate

SMALL = Deployment()
FILES = ["Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin", "Manifest.json"]
PACKAGES = ("stage2.mlpackage", "stage2-ane.mlpackage")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_holds_its_program_its_weights_and_its_manifest_alone(apple_bundle: Path, package: str) -> None:
    assert sorted(files(apple_bundle / package)) == FILES


@pytest.mark.parametrize("target", ["coreml", "coreml-ane", "executorch-coreml"])
def test_equal_functions_give_equal_bytes(
    apple_bundle: Path, small_function: IntegerFunction, tmp_path: Path, target: str
) -> None:
    name = ARTIFACTS[target].file("stage2")
    load_converter(ARTIFACTS[target])(small_function, tmp_path / name, SMALL)
    if target == "executorch-coreml":
        assert (tmp_path / name).read_bytes() == (apple_bundle / name).read_bytes()
    else:
        assert files(tmp_path / name) == files(apple_bundle / name)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is(apple_bundle: Path, package: str) -> None:
    model = Model_pb2.Model()
    model.ParseFromString((apple_bundle / package / FILES[0]).read_bytes())
    metadata = model.description.metadata
    assert metadata.shortDescription.startswith("stage2: the ")
    assert (metadata.license, metadata.author) == ("Apache-2.0", "litehrnet-stage2")
    assert not [key for key in metadata.userDefined if "date" in key]
    features = (*model.description.input, *model.description.output)
    described = {feature.name: feature.shortDescription for feature in features}
    assert sorted(described) == ["features", "y1", "y2"]
    assert all("NCHW" in text for text in described.values())


@pytest.mark.parametrize("package", PACKAGES)
def test_coremltools_still_opens_a_tidied_package(apple_bundle: Path, package: str) -> None:
    model = ct.models.MLModel(str(apple_bundle / package), skip_model_load=True)
    assert sorted(model.output_description) == ["y1", "y2"]
    assert model.user_defined_metadata["com.github.apple.coremltools.version"] == ct.__version__


def test_tidying_drops_the_mapping_that_coremltools_writes_and_leaves_the_program(
    small_function: IntegerFunction, tmp_path: Path
) -> None:
    exported = torch.export.export(NeuralEngineModule(small_function).eval(), (torch.zeros(1, 4, 16, 24),))
    model = ct.convert(exported.run_decompositions({}), minimum_deployment_target=ct.target.iOS17, skip_model_load=True)
    plain = tmp_path / "plain.mlpackage"
    model.save(str(plain))
    tidied = Path(shutil.copytree(plain, tmp_path / "tidied.mlpackage"))
    tidy(tidied)
    assert sorted(files(plain)) == [*FILES, DEBUG_MAPPING]
    assert sorted(files(tidied)) == FILES

    before, after = MilProgram.load(plain), MilProgram.load(tidied)
    assert list(map(str, before.operations)) == list(map(str, after.operations))
    x = np.random.default_rng(0).standard_normal((1, 4, 16, 24)).astype(np.float32)
    wanted = evaluate(before, {before.inputs[0].name: x})
    for name, y in evaluate(after, {after.inputs[0].name: x}).items():
        np.testing.assert_array_equal(y, wanted[name])


def test_tidying_twice_changes_nothing_more(apple_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(apple_bundle / PACKAGES[1], tmp_path / PACKAGES[1]))
    tidy(copy)
    assert files(copy) == files(apple_bundle / PACKAGES[1])
