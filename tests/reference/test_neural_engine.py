"""The Neural Engine's form of a frozen network."""

import numpy as np
import pytest
import torch

from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.reference.neural_engine import (
    MOST_WIDENING,
    NeuralEngineModule,
    _for_float16,
    read_by_convolutions,
    train_for_neural_engine,
)
from litehrnet_stage2.reference.operators import Conv
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 32, 16, 32)


@pytest.fixture
def model(features: torch.Tensor) -> QATStage2:
    torch.manual_seed(0)
    stage2 = Stage2()
    with torch.no_grad():  # weights of a trained network's size: a fresh one's activations vanish
        for parameter in stage2.parameters():
            if parameter.ndim == 4:
                parameter.mul_(3)
    return QATStage2.from_float(stage2.eval()).calibrate(features).eval()


def test_exactly_the_tensors_that_convolutions_read_are_quantised(model):
    function, _ = freeze(model)
    read = {node.input for node in function.nodes if isinstance(node, Conv)}
    assert set(read_by_convolutions(function)) == read
    assert len(read) == 19  # the features feed two convolutions


def test_scales_are_float16_numbers(model):
    function, _ = freeze(model)
    for q in read_by_convolutions(function).values():
        assert np.float16(q.scale) == q.scale


def test_a_balanced_range_becomes_symmetric_and_still_covers_its_ends():
    q = Quantization(np.float32(0.1), -10)
    symmetric = _for_float16("x", q)
    assert symmetric.zero_point == 0
    assert symmetric.scale * 127 == pytest.approx(0.1 * (127 + 10), rel=1e-3)
    assert symmetric.scale / q.scale <= MOST_WIDENING


def test_a_one_sided_range_keeps_its_zero_point():
    assert _for_float16("x", Quantization(np.float32(0.1), -114)).zero_point == -114


def test_a_scale_below_float16_is_refused():
    with pytest.raises(ValueError, match=r"scale of `x` \(=1e-06\) is below 6.1e-05"):
        _for_float16("x", Quantization(np.float32(1e-6), -114))


@torch.no_grad()
def test_the_fake_quantised_network_and_the_form_are_one_function(model, features):
    form = NeuralEngineModule(freeze(model)[0]).eval()
    trained = train_for_neural_engine(model)
    for a, b in zip(trained(features), form(features), strict=True):
        noise = (a - b).pow(2).sum() / b.pow(2).sum()
        # Weight scales in float16 are off by up to 2^-11, biases snapped: a code here and there falls otherwise.
        assert noise < 10 ** (-30 / 10)


def test_gradients_reach_every_weight_in_the_neural_engines_shape(model, features):
    train_for_neural_engine(model)
    sum(y.square().mean() for y in model(features)).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in model.named_parameters() if n.endswith("weight")
    )
