"""Networks of other people: dead parts, pruned ones, features of any scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.convert import convert_to_bundle
from litehrnet_stage2.converters.write_bundle import write_bundle
from litehrnet_stage2.reference.checkpoint import save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.contract.artifacts import DEFAULT_TARGETS
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.golden import evaluate
from litehrnet_stage2.reference.neural_engine import NeuralEngineModule
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime import Bundle, check_parity, open_session

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))


def features(scale: float = 1.0) -> Tensor:
    return scale * torch.randn(4, 4, 16, 24, generator=torch.Generator().manual_seed(1))


def sqnr_db(model: Stage2, x: Tensor) -> list[float]:
    """Of each output of the integer function against the float network; infinite where both are zero."""
    function, _ = freeze(QATStage2.from_float(model).calibrate(x))
    codes = evaluate(function, function.quantization["features"].quantize(x.numpy()))
    decibels = []
    with torch.no_grad():
        for (name, tensor), due in zip(function.outputs.items(), model(x), strict=True):
            noise = np.square(function.quantization[tensor].dequantize(codes[name]) - due.numpy()).mean()
            decibels.append(float("inf") if noise == 0 else float(10 * np.log10(due.square().mean().item() / noise)))
    return decibels


def _zero_gamma(model: Stage2) -> None:
    for parameter in model.branches[0][0].project.bn.parameters():
        nn.init.zeros_(parameter)


def _zero_projection(model: Stage2) -> None:
    nn.init.zeros_(model.fuse_layers[0][1].project.weight)
    nn.init.zeros_(model.fuse_layers[1][0].pointwise.weight)


def _dead_branch(model: Stage2) -> None:
    nn.init.zeros_(model.transition["b2_down"].depthwise.weight)
    block = model.branches[1][0]
    for unit in (model.transition["b2_down"].pointwise, block.expand, block.depthwise, block.project):
        nn.init.zeros_(unit.bn.bias)
        nn.init.zeros_(unit.bn.running_mean)


def _silent_silu(model: Stage2) -> None:
    nn.init.constant_(model.smooth[0].bn.bias, -200.0)
    nn.init.constant_(model.branches[0][0].depthwise.bn.bias, -200.0)


DEAD = {"zero gamma": _zero_gamma, "projection": _zero_projection, "branch": _dead_branch, "silu": _silent_silu}


@pytest.mark.parametrize("part", DEAD)
def test_a_tensor_that_is_constantly_zero_freezes_and_costs_the_others_nothing(
    part: str, trained: Callable[[Stage2Config], Stage2]
) -> None:
    model = trained(CONFIG)
    DEAD[part](model)
    assert min(sqnr_db(model, features())) > 25


def test_features_that_are_all_zero_are_the_callers_mistake(trained: Callable[[Stage2Config], Stage2]) -> None:
    """What is dead inside converts; an input of zeros alone sets ranges that fit no other."""
    model = QATStage2.from_float(trained(CONFIG))
    with pytest.raises(InputError, match="features to calibrate on must hold what the network will see, but every"):
        model.calibrate(torch.zeros(2, 4, 16, 24))
    assert not model.calibrated
    one_of_four = features()
    one_of_four[1:] = 0
    assert model.calibrate(one_of_four).calibrated


@pytest.mark.parametrize("runtime", ["executorch", "onnxruntime", "coreml-eval"])
def test_dead_parts_give_the_golden_codes_in_every_runtime(runtime: str, dead_bundle: Path) -> None:
    bundle = Bundle.open(dead_bundle)
    assert check_parity(open_session(bundle, runtime), bundle.golden()).passed


@pytest.fixture(scope="module")
def dead_bundle(trained: Callable[[Stage2Config], Stage2], tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = trained(CONFIG)
    _zero_gamma(model)
    _zero_projection(model)
    folder = tmp_path_factory.mktemp("dead") / "bundle"
    frozen = freeze(QATStage2.from_float(model).calibrate(features()))
    write_bundle(*frozen, features().numpy()[:1], folder, float_network=lambda x: _arrays(model, x))
    return folder


BORDERS = {
    "one input channel": (Stage2Config(in_channels=1, num_channels=(4, 8), num_blocks=(1, 1)), (16, 24)),
    "a map of 2x2": (CONFIG, (2, 2)),
    "one channel everywhere on a map of 2x2": (Stage2Config(in_channels=1, num_channels=(1, 1)), (2, 2)),
}


@pytest.mark.parametrize("border", BORDERS)
def test_a_border_whose_layout_is_ambiguous_gives_the_golden_codes_all_the_same(
    border: str, trained: Callable[[Stage2Config], Stage2], tmp_path: Path
) -> None:
    """With one channel, or one cell of Y2, channels first and channels last have the same strides."""
    config, size = BORDERS[border]
    model, x = trained(config), torch.randn(2, config.in_channels, *size, generator=torch.Generator().manual_seed(2))
    frozen = freeze(QATStage2.from_float(model).calibrate(x))
    runtimes = ["executorch-codes", "litert-codes", "onnxruntime-codes"]
    targets = ["executorch-codes", "litert-codes", "onnx-codes"]
    write_bundle(*frozen, x.numpy(), tmp_path / "b", float_network=lambda x: _arrays(model, x), targets=targets)
    bundle = Bundle.open(tmp_path / "b")
    for runtime in runtimes:
        assert check_parity(open_session(bundle, runtime), bundle.golden()).passed


def test_sums_that_core_ml_cannot_count_leave_the_other_formats_alone(
    trained: Callable[[Stage2Config], Stage2], tmp_path: Path
) -> None:
    """A sum over 256 channels and their square can pass the 2^24 that float32 counts by ones."""
    config = Stage2Config(num_channels=(64, 256))
    path, maps = tmp_path / "float.safetensors", tmp_path / "features.npy"
    save_checkpoint(trained(config), path)
    np.save(maps, np.random.default_rng(0).standard_normal((2, 32, 8, 16)).astype(np.float32))
    with pytest.raises(InputError, match=r"past the 2\^24 that Core ML's float32 counts by ones: leave the target"):
        convert_to_bundle(tmp_path / "apple", checkpoint=path, calibration=maps, targets=["coreml"])
    manifest = convert_to_bundle(tmp_path / "bundle", checkpoint=path, calibration=maps)
    assert set(manifest.artifacts) == set(DEFAULT_TARGETS) - {"coreml"}


@torch.no_grad()
def _arrays(model: Stage2, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y1, y2 = model(torch.from_numpy(x))
    return y1.numpy(), y2.numpy()


def scaled(model: Stage2, factor: float) -> Stage2:
    """The network that computes of `factor * x` what `model` computes of `x`: its first BatchNorms match."""
    for unit in (model.transition["b1_keep"], model.transition["b2_down"].pointwise):
        bn = unit.bn
        with torch.no_grad():
            before = torch.sqrt(bn.running_var.double() + bn.eps)
            bn.running_mean.mul_(factor)
            bn.running_var.copy_(bn.running_var.double() * factor**2)
            after = torch.sqrt(bn.running_var.double() + bn.eps)
            bn.weight.copy_(bn.weight.double() * after / (before * factor))
    return model


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
def test_the_scale_of_the_features_costs_no_signal(factor: float, trained: Callable[[Stage2Config], Stage2]) -> None:
    due = sqnr_db(trained(CONFIG), features())
    found = sqnr_db(scaled(trained(CONFIG), factor), features(factor))
    assert found == pytest.approx(due, abs=0.5)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1e-6, r"the scale of `features` \(=.*\) is below 6\.1e-05.* too small for the Neural Engine"),
        (1e3, r"a weight scale of `transition\..*` \(=.*\) is below 7\.63e-06"),
        (1e6, r"a value of `features` can reach .*e\+06, .* float16, up to 65504"),
    ],
)
def test_the_neural_engines_form_refuses_what_float16_cannot_hold(
    factor: float, message: str, trained: Callable[[Stage2Config], Stage2]
) -> None:
    function, _ = freeze(QATStage2.from_float(scaled(trained(CONFIG), factor)).calibrate(features(factor)))
    with pytest.raises(InputError, match=message):
        NeuralEngineModule(function)


def test_dead_weights_are_no_obstacle_to_the_neural_engines_form(trained: Callable[[Stage2Config], Stage2]) -> None:
    model = trained(CONFIG)
    nn.init.zeros_(model.smooth[0].conv.weight[0])
    function, _ = freeze(QATStage2.from_float(model).calibrate(features()))
    with torch.no_grad():
        assert all(y.isfinite().all() for y in NeuralEngineModule(function)(features()))
