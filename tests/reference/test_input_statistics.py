"""Wrong features are told from right ones by what the first BatchNorms saw in training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from litehrnet_stage2.apps import example
from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED
from litehrnet_stage2.reference.checkpoint import load_checkpoint
from litehrnet_stage2.reference.input_statistics import input_statistics, unusual_inputs
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

FIRST = ["transition.b1_keep.bn", "transition.b2_down.pointwise.bn"]


@pytest.fixture(scope="module")
def network() -> Stage2:
    return load_checkpoint(SHIPPED / "float.safetensors")


@pytest.fixture(scope="module")
def features(photographs: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(photographs)


def test_right_features_pass_with_the_statistics_of_the_first_batchnorms_alone(
    network: Stage2, features: Tensor
) -> None:
    found = input_statistics(network, features)
    assert [s.module for s in found] == FIRST
    assert all(s.usual for s in found), found
    assert unusual_inputs(found) is None


@pytest.mark.parametrize("wrong", ["times 255", "over 255", "doubled", "standardised", "channels reversed", "images"])
def test_wrong_features_are_named_with_their_numbers(network: Stage2, features: Tensor, wrong: str) -> None:
    match wrong:
        case "times 255":
            inputs = features * 255
        case "over 255":
            inputs = features / 255
        case "doubled":
            inputs = features * 2
        case "standardised":
            over = (0, 2, 3)
            inputs = (features - features.mean(over, keepdim=True)) / features.std(over, keepdim=True)
        case "channels reversed":
            inputs = features.flip(1)
        case _:
            images = example.crops(4)[:, :, ::4, ::4]
            inputs = images.repeat(1, 11, 1, 1)[:, :32]
    found = input_statistics(network, inputs)
    warning = unusual_inputs(found)
    assert warning is not None, found
    worst = max((s for s in found if not s.usual), key=lambda s: s.mean_shift)
    assert f"`{worst.module}` is off by {worst.mean_shift:.2g} standard deviations" in warning
    assert "order of channels" in warning


def test_the_numbers_are_the_shift_in_sigma_and_the_ratio_of_spreads() -> None:
    norm = nn.BatchNorm2d(2, eps=0.0).eval()
    norm.running_mean.copy_(torch.tensor([1.0, -1.0]))
    norm.running_var.copy_(torch.tensor([4.0, 4.0]))
    inputs = (
        torch.tensor([1.0, -1.0])[None, :, None, None] + 2 * torch.tensor([-1.0, 1.0]).repeat(10)[:, None, None, None]
    )
    (right,) = input_statistics(nn.Sequential(norm), inputs)
    assert (right.mean_shift, right.std_ratio) == pytest.approx((0.0, 1.0))
    (wrong,) = input_statistics(nn.Sequential(norm), 3 * inputs + 2)
    assert wrong.std_ratio == pytest.approx(3.0)
    assert wrong.mean_shift == pytest.approx(((4.0 / 2) ** 2 / 2) ** 0.5)


def test_a_folded_network_has_nothing_to_compare_with_and_a_network_is_left_as_it_was(features: Tensor) -> None:
    assert input_statistics(QATStage2(), features) == ()
    model = Stage2().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    input_statistics(model, features)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    assert not any(vars(module)[kind] for module in model.modules() for kind in hooks)
