"""State dicts as people have them: what is meant is loaded, and what cannot be says which mistake it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.reference.state import WeightsError

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 0), expansion=3)


@pytest.fixture
def state(trained: Callable[[Stage2Config], Stage2]) -> dict[str, Tensor]:
    return dict(trained(CONFIG).state_dict())


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "backbone.stage2."])
def test_the_one_stage2_in_a_state_dict_is_loaded_whatever_stands_before_its_names(
    prefix: str, strict: bool, state: dict[str, Tensor]
) -> None:
    others = {"head.weight": torch.zeros(3)} if prefix.startswith("backbone") else {}
    model = Stage2(CONFIG)
    model.load_state_dict(_under(prefix, state) | others, strict=strict)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    kept = {name: tensor for name, tensor in state.items() if ".bn." not in name}
    return kept | {
        name.replace("conv.weight", "conv.bias"): torch.zeros(len(tensor))
        for name, tensor in kept.items()
        if name.endswith("conv.weight")
    }


MISTAKES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "whole checkpoint": (
        lambda state: {"epoch": 3, "state_dict": state},
        "`epoch` is no tensor but of type int: pass tensors by name alone",
    ),
    "nested": (lambda state: {"model": state}, r"`model` is no tensor .* pass checkpoint\['model'\] alone"),
    "two": (
        lambda state: _under("student.", state) | _under("ema.", state),
        r"holds 2 Stage2, under `student\.`, `ema\.`: choose one with \{k\.removeprefix\('student\.'\)",
    ),
    "official": (
        lambda _: {"stage2.0.branches.0.0.conv1.weight": torch.zeros(3)},
        "is a name of the official HRNet or Lite-HRNet",
    ),
    "folded": (_folded, "BatchNorm has been folded into the convolutions"),
    "quantised": (lambda _: QATStage2(CONFIG).state_dict(), "they are those of a QATStage2: load them with"),
    "another shape": (
        lambda _: Stage2(Stage2Config(in_channels=4, num_channels=(6, 8), num_blocks=(1, 2))).state_dict(),
        r"Stage2Config\(in_channels=4, num_channels=\(6, 8\), num_blocks=\(1, 2\), expansion=2\)",
    ),
    "incomplete": (
        lambda state: {k: v for k, v in state.items() if k != "smooth.1.conv.weight"},
        r"1 names are missing, the first `smooth\.1\.conv\.weight`",
    ),
    "more": (lambda state: state | {"extra.weight": torch.zeros(1)}, r"1 names are unknown, the first `extra\.weight`"),
    "wrong": (
        lambda state: state | {"smooth.0.conv.weight": torch.zeros(1, 2)},
        r"`smooth\.0\.conv\.weight` has shape \[1, 2\] instead of \[4, 4, 3, 3\]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_weights_that_do_not_fit_say_which_mistake_it_is(mistake: str, state: dict[str, Tensor]) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(WeightsError, match=message):
        Stage2(CONFIG).load_state_dict(make(state))


def test_float_weights_are_not_loaded_into_a_quantised_network(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"those of a float Stage2: .*QATStage2\.from_float\(stage2\)"):
        QATStage2(CONFIG).load_state_dict(state)


def test_a_number_in_the_place_of_a_config_is_answered_with_the_line_to_write() -> None:
    with pytest.raises(InputError, match=r"was given 32: write Stage2\(Stage2Config\(in_channels=32\)\)"):
        Stage2(32)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 4, 8, 8).numpy(), r"given a ndarray: write calibrate\(torch\.from_numpy"),
        (torch.zeros(1, 4, 8, 8).half(), r"float16 .* write stage2\.float\(\)\.calibrate\(features\.float\(\)\)"),
    ],
)
def test_features_of_a_wrong_type_are_answered_with_the_line_to_write(features: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        QATStage2(CONFIG).calibrate(features)


def test_features_with_the_channels_last_are_told_to_be_moved() -> None:
    with pytest.raises(ValueError, match=r"the channels stand last: .*permute\(0, 3, 1, 2\)"):
        Stage2(CONFIG)(torch.zeros(1, 8, 8, 4))
