"""The Neural Engine's package of the weights that ship, evaluated in float16 without Apple hardware."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from litehrnet_stage2.apps import example
from litehrnet_stage2.apps.landmarks.landmark_net import Prediction, answers
from litehrnet_stage2.apps.landmarks.metrics import TaskMetrics, task_metrics
from litehrnet_stage2.apps.landmarks.pool import TEST_SEED, batches, rendered
from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_stem_and_heads
from litehrnet_stage2.converters import to_coreml_ane
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.write_bundle import write_bundle
from litehrnet_stage2.reference.checkpoint import load_checkpoint
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.neural_engine import NeuralEngineModule, train_for_neural_engine
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import Mode, set_mode
from litehrnet_stage2.runtime import Bundle, Session, check_fidelity, check_parity, expected, open_session
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.parity import sqnr_db
from tests.int8_layers import int8_coverage

IMAGES = slice(16, 18)  # the first 16 calibrate when a float network is converted
SCENES = 10
Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]


class Trained(NamedTuple):
    """A network trained in the Neural Engine's shape: what it gives, and its package."""

    fake_quantised: Outputs
    float_network: Outputs
    form: Outputs
    program: MilProgram


def tuned() -> QATStage2:
    model = load_checkpoint(example.checkpoint())
    assert isinstance(model, QATStage2)
    return model


def run(program: MilProgram, features: NDArray[np.float32]) -> Outputs:
    found = [evaluate(program, {program.inputs[0].name: image[None]}) for image in features]
    y1, y2 = (np.concatenate([y[name] for y in found]).astype(np.float32) for name in ("y1", "y2"))
    return y1, y2


@torch.no_grad()
def call(module: torch.nn.Module, features: NDArray[np.float32]) -> Outputs:
    y1, y2 = module(torch.from_numpy(features))
    return y1.numpy(), y2.numpy()


def sqnr(found: Outputs, wanted: Outputs) -> list[float]:
    return [sqnr_db(b.astype(np.float64), a - b) for a, b in zip(found, wanted, strict=True)]


@pytest.fixture(scope="module")
def features() -> NDArray[np.float32]:
    """Features of photographs, float32 `[2,32,64,128]`, that nothing was calibrated on here."""
    return example.features(IMAGES.stop)[IMAGES]


@pytest.fixture(scope="module")
def shipped() -> IntegerFunction:
    return freeze(tuned())[0]


@pytest.fixture(scope="module")
def bundle(features: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Both packages of the shipped weights."""
    network = tuned()
    frozen = freeze(network)
    set_mode(network, Mode.FLOAT)
    folder = tmp_path_factory.mktemp("shipped") / "bundle"
    targets = ("coreml", "coreml-ane")
    write_bundle(*frozen, features, folder, float_network=lambda x: call(network, x), targets=targets)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def program(bundle: Bundle) -> MilProgram:
    return MilProgram.load(bundle.folder / "stage2-ane.mlpackage")


def test_every_convolution_is_in_int8_and_nothing_is_quantised_for_nothing(program: MilProgram) -> None:
    coverage = int8_coverage(program)
    assert (len(coverage.layers), coverage.int8_layers, coverage.leftover_pairs) == (20, 20, ())
    counts = program.operator_counts()
    assert (counts["conv"], counts["silu"]) == (20, 16)
    assert (counts["quantize"], counts["dequantize"]) == (19, 19)
    assert not {"sigmoid", "mul", "cast"} & set(counts)


def test_no_silu_has_a_quantise_inside_and_every_quantise_serves_a_convolution(program: MilProgram) -> None:
    makers = {tensor.name: operation for operation in program.operations for tensor in operation.outputs}
    for operation in program.operations:
        if operation.type == "silu":
            assert makers[str(operation.argument("x"))].type == "conv"
    read_by_convolutions = {
        str(operation.argument("x")) for operation in program.operations if operation.type == "conv"
    }
    for operation in program.operations:
        if operation.type == "dequantize":
            assert operation.outputs[0].name in read_by_convolutions


def test_scales_are_float16_numbers_and_so_are_input_and_outputs(program: MilProgram) -> None:
    assert {tensor.dtype for tensor in (*program.inputs, *program.outputs)} == {np.dtype(np.float16)}
    for operation in program.operations:
        if operation.type == "quantize":
            scale = operation.argument("scale")
            value = program.constants[scale] if isinstance(scale, str) else scale
            assert value.dtype == np.float16
            assert value >= 2.0**-14


def test_it_is_as_near_to_float_as_the_integer_function(bundle: Bundle) -> None:
    result = check_fidelity(open_session(bundle, "coreml-eval-ane"), bundle.golden())
    assert result.passed
    for output in result.outputs.values():
        assert output.sqnr_db > output.golden_sqnr_db  # it rounds in fewer places


def test_the_exact_package_beside_it_gives_equal_codes_on_golden_and_unseen_inputs(
    bundle: Bundle, features: NDArray[np.float32]
) -> None:
    session = open_session(bundle, "coreml-eval")
    assert check_parity(session, bundle.golden()).passed
    unseen = 1.5 * features[:1, :, ::-1, ::-1]
    assert check_parity(session, expected(bundle.function(), np.ascontiguousarray(unseen))).passed
    coverage = int8_coverage(MilProgram.load(bundle.folder / "stage2.mlpackage"))
    assert (len(coverage.layers), coverage.int8_layers) == (20, 20)


def test_ios17_and_ios18_write_weights_differently_and_compute_the_same(
    shipped: IntegerFunction, program: MilProgram, features: NDArray[np.float32], tmp_path: Path
) -> None:
    deployment = Deployment(coreml_target="iOS18")
    to_coreml_ane.convert(shipped, tmp_path / "ios18.mlpackage", deployment)
    newer = MilProgram.load(tmp_path / "ios18.mlpackage")
    assert program.operator_counts()["constexpr_affine_dequantize"] == 20
    assert newer.operator_counts()["constexpr_blockwise_shift_scale"] == 20
    assert (int8_coverage(newer).int8_layers, int8_coverage(newer).leftover_pairs) == (20, ())
    for a, b in zip(run(newer, features[:1]), run(program, features[:1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained(features: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    network = train_for_neural_engine(tuned()).eval()
    function = freeze(network)[0]
    path = tmp_path_factory.mktemp("trained") / "stage2-ane.mlpackage"
    to_coreml_ane.convert(function, path, Deployment())
    fake_quantised = call(network, features)
    set_mode(network, Mode.FLOAT)
    return Trained(
        fake_quantised,
        call(network, features),
        call(NeuralEngineModule(function).eval(), features),
        MilProgram.load(path),
    )


def test_a_network_trained_in_this_shape_loses_nothing_in_the_package(
    trained: Trained, features: NDArray[np.float32]
) -> None:
    """Float16 between the convolutions makes codes flip, and a flip spreads, so the two agree as two roundings of
    one network do: to 20 dB directly. What the rounding costs against float, though, is the same to 0.3 dB.
    """
    package = run(trained.program, features)
    assert min(sqnr(package, trained.fake_quantised)) > 20
    assert min(sqnr(package, trained.form)) > 20
    as_trained, as_packaged = sqnr(trained.fake_quantised, trained.float_network), sqnr(package, trained.float_network)
    assert as_packaged == pytest.approx(as_trained, abs=0.3)


def test_landmarks_are_found_where_the_float_network_finds_them(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stem, heads = load_stem_and_heads(SHIPPED / "landmarks.safetensors")
    scenes = rendered("test", count=SCENES, seed=TEST_SEED, folder=tmp_path_factory.mktemp("scenes"))

    def through_package(session: Session, images: torch.Tensor) -> Prediction:
        outputs = session.run(stem(images).numpy())
        prediction: Prediction = heads(*(torch.from_numpy(y) for y in outputs))
        return prediction

    session, teacher = open_session(bundle, "coreml-eval-ane"), load_checkpoint(SHIPPED / "float.safetensors")
    with torch.no_grad():
        wanted: TaskMetrics = task_metrics(
            answers(lambda images: heads(*teacher(stem(images))), batches(scenes, batch=5))
        )
        found = task_metrics(answers(lambda images: through_package(session, images), batches(scenes, batch=5)))
    assert found.error_median_px == pytest.approx(wanted.error_median_px, abs=0.05)
