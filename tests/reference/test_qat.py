"""The quantisation-aware network: the same function in float, stable keys, gradients through the rounding."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.leaves import QuantConv
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import (
    ActivationQuantizer,
    Mode,
    WeightQuantizer,
    keep_scales_positive,
    learn_step_sizes,
    set_mode,
)
from litehrnet_stage2.reference.stage2 import Stage2

CONFIGS = [
    Stage2Config(),
    Stage2Config(in_channels=4, num_channels=(6, 10), num_blocks=(0, 3), expansion=3),
]


@pytest.fixture
def calibrated(trained: Callable[[Stage2Config], Stage2]) -> QATStage2:
    config = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))
    return QATStage2.from_float(trained(config)).calibrate(torch.randn(4, 4, 16, 16))


@pytest.mark.parametrize("config", CONFIGS, ids=["specified", "other"])
def test_in_float_it_computes_what_the_float_network_does_although_it_projects_first(
    config: Stage2Config, trained: Callable[[Stage2Config], Stage2]
) -> None:
    """The one is in the literal order with BatchNorm, the other in the commuted order with BatchNorm folded."""
    model = trained(config)
    x = torch.randn(2, config.in_channels, 32, 48)
    with torch.no_grad():
        for found, due in zip(QATStage2.from_float(model)(x), model(x), strict=True):
            torch.testing.assert_close(found, due, atol=1e-5, rtol=1e-5)


def test_calibrating_passes_the_float_values_on(trained: Callable[[Stage2Config], Stage2]) -> None:
    model = QATStage2.from_float(trained(Stage2Config(in_channels=4, num_channels=(4, 8))))
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        before = model(x)
        set_mode(model, Mode.CALIBRATE)
        assert all(torch.equal(a, b) for a, b in zip(model(x), before, strict=True))
        set_mode(model, Mode.FAKE_QUANTIZE)
        assert not any(torch.equal(a, b) for a, b in zip(model(x), before, strict=True))


def test_fake_quantised_outputs_lie_on_the_int8_grid(calibrated: QATStage2) -> None:
    with torch.no_grad():
        outputs = calibrated(torch.randn(1, 4, 16, 16))
    for y, smooth in zip(outputs, calibrated.smooth, strict=True):
        codes = y / smooth.act.output.scale
        torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
        assert len(torch.unique(codes.round())) <= 256


@pytest.mark.parametrize("mode", Mode)
def test_state_dict_keys_do_not_depend_on_the_mode(mode: Mode, calibrated: QATStage2) -> None:
    before = calibrated.state_dict().keys()
    set_mode(calibrated, mode)
    calibrated(torch.randn(1, 4, 8, 8))
    learn_step_sizes(calibrated)
    assert calibrated.train().state_dict().keys() == before
    assert calibrated.eval().state_dict().keys() == before


@pytest.mark.parametrize(
    ("model", "count", "digest"),
    [(Stage2, 100, "bbed4c409adaff64"), (QATStage2, 212, "6b7df30b7f89f7ba")],
)
def test_state_dict_keys_are_those_that_checkpoints_have(model: type[Stage2], count: int, digest: str) -> None:
    keys = sorted(model().state_dict())
    assert len(keys) == count
    assert hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16] == digest


def test_calibrated_ranges_are_the_extremes_and_hold_zero(trained: Callable[[Stage2Config], Stage2]) -> None:
    config = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(0, 0))
    x = torch.rand(20, 4, 8, 8) + 1  # several batches, all above zero
    x[17, 0, 0, 0], x[3, 1, 2, 3] = 9.0, 1.0
    quantizer = QATStage2.from_float(trained(config)).calibrate(x).input
    assert (float(quantizer.low), float(quantizer.high)) == (0.0, 9.0)
    assert float(quantizer.scale) == pytest.approx(9 / 255)
    assert int(quantizer.zero_point) == -128


def test_calibrating_again_forgets_the_ranges_before(calibrated: QATStage2) -> None:
    calibrated.calibrate(torch.randn(2, 4, 16, 16) * 100)
    calibrated.calibrate(torch.full((1, 4, 16, 16), 0.5))
    assert float(calibrated.input.high) == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_calibrating_on_what_is_not_finite_says_so(value: float, calibrated: QATStage2) -> None:
    with pytest.raises(ValueError, match="not finite"):
        calibrated.calibrate(torch.full((1, 4, 16, 16), value))


def test_gradient_goes_straight_through_inside_the_range_and_stops_outside() -> None:
    quantizer = ActivationQuantizer()
    quantizer.set_range(-1.0, 1.0)
    quantizer.mode = Mode.FAKE_QUANTIZE
    x = torch.tensor([-3.0, -0.7, 0.0, 0.123, 0.99, 1.5], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_weights_are_rounded_symmetrically_per_output_channel_with_a_straight_through_gradient() -> None:
    weight = torch.tensor([[[[-2.0, 0.3]]], [[[0.5, 0.26]]], [[[0.0, 0.0]]]], requires_grad=True)
    quantizer = WeightQuantizer()
    rounded = quantizer(weight)
    torch.testing.assert_close(quantizer.scale(weight)[:2], torch.tensor([2 / 127, 0.5 / 127]))
    torch.testing.assert_close(rounded[0, 0, 0], torch.tensor([-127, 19]) * (2 / 127))
    torch.testing.assert_close(rounded[1, 0, 0], torch.tensor([127, 66]) * (0.5 / 127))
    assert not rounded[2].any()
    rounded.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_every_weight_and_bias_gets_a_gradient_through_all_quantisers(calibrated: QATStage2) -> None:
    y1, y2 = calibrated(torch.randn(2, 4, 16, 16))
    (y1.square().mean() + y2.square().mean()).backward()
    names = [
        f"{name}.{kind}"
        for name, module in calibrated.named_modules()
        if isinstance(module, QuantConv)
        for kind in ("weight", "bias")
    ]
    assert len(names) == 2 * 14
    for name in names:
        gradient = calibrated.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_learned_step_sizes_get_a_gradient_and_only_when_asked_for(calibrated: QATStage2) -> None:
    def backward() -> None:
        y1, y2 = calibrated(torch.randn(2, 4, 16, 16))
        (y1.square().mean() + y2.square().mean()).backward()

    quantizers = [m for m in calibrated.modules() if isinstance(m, ActivationQuantizer)]
    backward()
    assert all(quantizer.scale.grad is None for quantizer in quantizers)
    scales = learn_step_sizes(calibrated)
    backward()
    assert len(scales) == len(quantizers)
    assert all(scale.grad is not None and scale.grad != 0 for scale in scales)


def test_an_ordinary_training_loop_lowers_the_loss(calibrated: QATStage2) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 16, 16)
    targets = [torch.randn_like(y) * 0.1 for y in calibrated(x)]
    optimizer = torch.optim.Adam(calibrated.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = torch.stack([nn.functional.mse_loss(y, t) for y, t in zip(calibrated(x), targets, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_a_quantisation_aware_network_is_not_taken_for_a_float_one(calibrated: QATStage2) -> None:
    """Its weights would have been left at random."""
    with pytest.raises(ValueError, match=r"`from_float` was given a QATStage2, .* give the float Stage2"):
        QATStage2.from_float(calibrated)


def test_a_network_rounds_after_loading_the_state_of_a_calibrated_one(calibrated: QATStage2) -> None:
    loaded = QATStage2(calibrated.config)
    loaded.load_state_dict(calibrated.state_dict())
    x = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(loaded(x), calibrated(x), strict=True))
    loaded.load_state_dict(QATStage2(calibrated.config).state_dict())
    assert {m.mode for m in loaded.modules() if isinstance(m, ActivationQuantizer)} == {Mode.FLOAT}


def test_nothing_is_rounded_with_a_range_that_was_never_set() -> None:
    with pytest.raises(ValueError, match=r"is not known: call `calibrate\(features\)`"):
        set_mode(QATStage2(), Mode.FAKE_QUANTIZE)


def test_a_tensor_that_is_constantly_zero_has_a_range() -> None:
    quantizer = ActivationQuantizer()
    assert not quantizer.calibrated
    quantizer.mode = Mode.CALIBRATE
    quantizer(torch.zeros(3))
    assert quantizer.calibrated
    assert quantizer.scale > 0
    assert not quantizer.round(torch.zeros(3)).any()
    quantizer.forget()
    assert not quantizer.calibrated


def test_learned_scales_stay_positive(calibrated: QATStage2) -> None:
    with torch.no_grad():
        for scale in learn_step_sizes(calibrated):
            scale.fill_(-1.0)
    keep_scales_positive(calibrated)
    assert all(module.scale > 0 for module in calibrated.modules() if isinstance(module, ActivationQuantizer))


def _train(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.stack([y.square().mean() for y in network(torch.randn(1, 4, 16, 16))]).sum().backward()
    optimizer.step()


def test_an_optimiser_built_before_the_swap_is_noticed_when_what_it_did_not_train_is_saved(
    trained: Callable[[Stage2Config], Stage2], tmp_path: Path
) -> None:
    network = nn.Sequential(trained(Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))))
    early = torch.optim.AdamW(network.parameters())
    network[0] = QATStage2.from_float(network[0]).calibrate(torch.randn(1, 4, 16, 16))
    _train(network, early)
    with pytest.warns(UserWarning, match=r"build the optimiser after QATStage2 has taken"):
        save_checkpoint(network[0], tmp_path / "q.safetensors")
    _train(network, torch.optim.AdamW(network.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_checkpoint(network[0], tmp_path / "q.safetensors")


def test_training_in_train_mode_warns_of_the_batchnorms_around(calibrated: QATStage2) -> None:
    optimizer = torch.optim.AdamW(calibrated.parameters())
    with pytest.warns(UserWarning, match=r"call network\.eval\(\) before the loop"):
        _train(calibrated.train(), optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(calibrated.eval(), optimizer)


def test_the_average_of_pytorch_follows_a_quantised_network_and_is_saved_as_one(
    calibrated: QATStage2, tmp_path: Path
) -> None:
    average = swa_utils.AveragedModel(calibrated, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = torch.optim.SGD(calibrated.parameters(), lr=1e-3)
    for _ in range(3):
        _train(calibrated, optimizer)
        average.update_parameters(calibrated)
    save_checkpoint(average, tmp_path / "q.safetensors")
    loaded = load_checkpoint(tmp_path / "q.safetensors")
    assert torch.equal(loaded.smooth[0].conv.weight, average.module.smooth[0].conv.weight)
    assert not torch.equal(loaded.smooth[0].conv.weight, calibrated.smooth[0].conv.weight)
    assert freeze(loaded)[0].tensors["features"].shape == (1, 4, 16, 16)
