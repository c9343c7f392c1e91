"""The `.mlpackage` whose pixels are images: its codes, evaluated without Apple hardware, and what it refuses."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from coremltools.proto import Model_pb2
from numpy.typing import NDArray
from torch import Tensor, nn

from litehrnet_stage2.apps.check_bundle import check_bundle
from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.converters import to_coreml_image
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, Border
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import LoweringError
from litehrnet_stage2.runtime import Bundle, check_parity, open_session
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.coreml.predict_worker import fed
from litehrnet_stage2.runtime.latency import Plan, measure, tier_named
from litehrnet_stage2.runtime.latency.lanes.mac import MacLane, mac_candidates
from litehrnet_stage2.runtime.program import Names
from litehrnet_stage2.runtime.programs.coreml_program import CoreMlProgram
from litehrnet_stage2.runtime.session import Session, session_info

STAND_IN = Path(__file__).parents[1] / "runtime" / "coreml" / "stand_in_worker.py"
IMAGE = ARTIFACTS["coreml-image"].border


class Depth(nn.Module):
    """A picture, a grey map beside it, and features of no colour."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.grey, self.prior = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(2, 4, 1)
        self.heat = nn.Conv2d(4, 2, 1)

    def forward(self, picture: Tensor, grey: Tensor, prior: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.picture(picture) + self.grey(grey))
        return {"heat": self.heat(x + self.prior(prior))}


@pytest.fixture(scope="module")
def inputs() -> dict[str, NDArray[np.uint8] | NDArray[np.float32]]:
    random = np.random.default_rng(3)
    return {
        "picture": random.integers(0, 256, (3, 3, 16, 24)).astype(np.uint8),
        "grey": random.integers(0, 256, (3, 1, 16, 24)).astype(np.uint8),
        "prior": random.normal(size=(3, 2, 8, 12)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def bundle(inputs: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("image") / "bundle"
    convert_network(Depth().eval(), folder, *inputs.values(), targets=("coreml", "coreml-image"))
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def package(bundle: Bundle) -> Path:
    return bundle.folder / bundle.artifact("coreml-image")


def test_codes_are_the_golden_ones(bundle: Bundle, inputs: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    """Of the golden inputs, which reach every byte and both ends, and of a person's own."""
    assert check_parity(open_session(bundle, "coreml-eval-image"), bundle.golden()).passed
    np.savez(tmp_path / "mine.npz", **{name: x[::-1] for name, x in inputs.items()})  # type: ignore[arg-type]
    results = check_bundle(bundle.folder, runtimes=["coreml-eval-image"], inputs=tmp_path / "mine.npz")
    assert [result.passed for result in results] == [True]


def test_pixels_are_images_for_core_ml_and_the_rest_arrays(package: Path) -> None:
    model = Model_pb2.Model()
    model.ParseFromString((package / "Data" / "com.apple.CoreML" / "model.mlmodel").read_bytes())
    described = {feature.name: feature.type for feature in (*model.description.input, *model.description.output)}
    kinds = {name: kind.WhichOneof("Type") for name, kind in described.items()}
    assert kinds == {
        "picture": "imageType",
        "grey": "imageType",
        "prior": "multiArrayType",
        "heat": "multiArrayType",
    }
    for name, space in (("picture", "RGB"), ("grey", "GRAYSCALE")):
        image = described[name].imageType
        assert (image.width, image.height, image.ColorSpace.Name(image.colorSpace)) == (24, 16, space)
    (text,) = (feature.shortDescription for feature in model.description.input if feature.name == "picture")
    assert text == "an image; code = value - 128"


def test_it_has_the_operators_of_the_package_with_arrays(bundle: Bundle) -> None:
    coverage = bundle.manifest.coverage
    assert coverage["coreml-image"] == coverage["coreml"]


def test_the_manifest_says_that_pixels_cross_as_images(bundle: Bundle) -> None:
    artifacts = bundle.manifest.artifacts
    assert artifacts["coreml-image"].border == IMAGE == Border("float32", images=True)
    assert not artifacts["coreml"].border.images
    assert str(IMAGE) == "float32 in and out, pixels as images"


def test_pixels_are_handed_over_as_their_bytes(bundle: Bundle) -> None:
    picture, grey, prior = bundle.golden().inputs.values()
    program = BorderProgram(open_session(bundle, "golden").program, bundle.manifest.inputs, (), IMAGE)
    for given in (program.from_codes(picture, grey, prior), program.prepare(*bundle.golden().real)):
        np.testing.assert_array_equal(given[0], picture.astype(np.int16) + 128)
        np.testing.assert_array_equal(given[1], grey.astype(np.int16) + 128)
        assert [x.dtype for x in given] == [np.uint8, np.uint8, np.float32]


def test_a_mac_is_given_pil_images(bundle: Bundle) -> None:
    """What they are made of; that Core ML takes them, only a Mac can show."""
    picture, grey = (codes.view(np.uint8) ^ np.uint8(128) for codes in list(bundle.golden().inputs.values())[:2])
    prior = bundle.golden().real[2]
    given = fed({"picture": picture, "grey": grey, "prior": prior}, 1)
    assert (given["picture"].mode, given["picture"].size) == ("RGB", (24, 16))
    np.testing.assert_array_equal(np.asarray(given["picture"]), picture[1].transpose(1, 2, 0))
    assert (given["grey"].mode, given["grey"].size) == ("L", (24, 16))
    np.testing.assert_array_equal(np.asarray(given["grey"]), grey[1, 0])
    np.testing.assert_array_equal(given["prior"], prior[1:2])


def test_images_reach_the_process_that_asks_core_ml(bundle: Bundle, package: Path) -> None:
    """Of the stand-in, whose Core ML is the evaluator."""
    info = session_info(bundle, runtime="coreml-image", version="0", artifact=package.name, threads=1)
    names = Names(("picture", "grey", "prior"), ("heat",))
    program = CoreMlProgram(package, "cpu", names, worker=(sys.executable, str(STAND_IN), "answers"))
    assert check_parity(Session(info, BorderProgram(program, info.inputs, info.outputs, IMAGE)), bundle.golden()).passed


def test_a_mac_times_the_package_with_images_and_judges_its_codes_on_the_cpu(bundle: Bundle) -> None:
    """Of the stand-in."""
    worker = (sys.executable, str(STAND_IN), "answers")
    candidates = [one for one in mac_candidates(bundle) if one.name.startswith("coreml-image")]
    with MacLane(bundle, Plan(tier=tier_named("quick"), processes=1), worker=worker) as lane:
        run = measure(lane, candidates[:2])
    assert [(one.name, one.exact, one.failure) for one in run.candidates] == [
        ("coreml-image on cpu", True, None),
        ("coreml-image on cpu+gpu", False, None),
    ]
    assert all(output.mismatches == 0 for one in run.candidates for output in one.parity.values())


def test_floats_are_not_evaluated_where_an_image_is_due(bundle: Bundle, package: Path) -> None:
    given = dict(zip(("picture", "grey", "prior"), (x[:1] for x in bundle.golden().real), strict=True))
    with pytest.raises(ValueError, match="input 'picture' is an image of uint8, and was given as float32"):
        evaluate(MilProgram.load(package), {name: x.astype(np.float32) for name, x in given.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colorSpace": 30}, "is an image in BGR, but only RGB and GRAYSCALE are read"),
        ({"width": 23}, r"is an image of \[1, 3, 16, 23\], but the program declares picture float32\[1, 3, 16, 24\]"),
        ({"colorSpace": 10}, r"is an image of \[1, 1, 16, 24\], but the program declares picture"),
    ],
)
def test_an_image_that_the_program_does_not_have_is_refused(
    package: Path, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    copy = Path(shutil.copytree(package, tmp_path / package.name))
    path = copy / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    (image,) = (feature.type.imageType for feature in model.description.input if feature.name == "picture")
    for name, value in change.items():
        setattr(image, name, value)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=message):
        MilProgram.load(copy)


def test_a_network_of_features_alone_is_refused(small_function: IntegerFunction, tmp_path: Path) -> None:
    with pytest.raises(
        LoweringError,
        match=r"`features` takes real values, and the target coreml-image needs an input of pixels: declare one .*, or "
        "use the target coreml",
    ):
        to_coreml_image.convert(small_function, tmp_path / "stage2-image.mlpackage", Deployment())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("channels", [2, 4])
def test_pixels_that_are_neither_rgb_nor_grey_are_refused(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, channels, 8, 12)).astype(np.uint8)
    with pytest.raises(
        LoweringError,
        match=rf"`input` has {channels} channels, and an image has 3 \(RGB\) or 1 \(grey\): use the target coreml",
    ):
        convert_network(nn.Conv2d(channels, 2, 1), tmp_path / "bundle", images, targets=["coreml-image"])
    assert not (tmp_path / "bundle").exists()
