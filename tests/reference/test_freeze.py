"""Freezing: what it proves, what it moves to be able to, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import FreezeError, Proof, freeze
from litehrnet_stage2.reference.golden import evaluate, trace
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.operators import Add, Conv, Resize, SiLU, add, silu
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))


@pytest.fixture
def model(trained: Callable[[Stage2Config], Stage2]) -> QATStage2:
    """A small calibrated network, to be spoilt."""
    torch.manual_seed(1)
    return QATStage2.from_float(trained(CONFIG)).calibrate(torch.randn(4, 4, 16, 16))


def test_every_addition_agrees_on_all_pairs_under_every_rule(function: IntegerFunction) -> None:
    additions = [node for node in function.nodes if isinstance(node, Add)]
    assert len(additions) == 6
    for node in additions:
        qa, qb = (function.quantization[name] for name in node.inputs)
        assert not add.disagreements(qa, qb, function.quantization[node.name]), node.name


def test_every_silu_is_clear_of_ties(function: IntegerFunction) -> None:
    silus = [node for node in function.nodes if isinstance(node, SiLU)]
    assert len(silus) == 16
    for node in silus:
        inp, out = function.quantization[node.input], function.quantization[node.name]
        assert silu.sigmoid_margin(inp) >= runtime_rules.SIGMOID_MARGIN
        assert silu.product_margin(inp, out) >= runtime_rules.PRODUCT_MARGIN


def test_the_proof_says_what_was_checked(frozen: tuple[IntegerFunction, Proof]) -> None:
    function, proof = frozen
    assert proof.nodes == {"Conv": 20, "SiLU": 16, "Add": 6, "Resize": 1}
    assert {rule.split(",")[0] for rule in proof.rules} == {
        "XNNPACK fixed point",
        "MLAS Arm fixed point",
        "MLAS x86 float32",
        "centred float32",
    }
    assert proof.nudges.keys() <= function.quantization.keys()


def test_nudges_are_parts_in_a_million_and_say_how_far_a_scale_moved(
    frozen: tuple[IntegerFunction, Proof],
    trained: Callable[[Stage2Config], Stage2],
    photographs: NDArray[np.float32],
) -> None:
    function, proof = frozen
    model = QATStage2.from_float(trained(Stage2Config())).calibrate(torch.from_numpy(photographs))
    assert proof.nudges
    assert max(map(abs, proof.nudges.values())) < 1e-3
    for name, q in function.quantization.items():
        if name.endswith(".resize"):
            continue
        leaf = model.input if name == "features" else model.get_submodule(name).output
        before = float(leaf.scale)
        assert float(q.scale) / before - 1 == pytest.approx(proof.nudges.get(name, 0.0), abs=1e-12)
        assert q.zero_point == int(leaf.zero_point)


def test_scales_that_divide_the_runtimes_are_nudged_until_they_do_not(model: QATStage2) -> None:
    """Make every term and sum a power of two, where half of all sums are ties."""
    block = model.branches[0][0]
    for quantizer, scale in (
        (model.transition["b1_keep"].act.output, 1 / 32),
        (block.project.act.output, 1 / 32),
        (block.add.output, 1 / 16),
    ):
        quantizer.scale.fill_(scale)
    operands = [Quantization(np.float32(1 / 32), 0), Quantization(np.float32(1 / 32), 0)]
    assert add.disagreements(*operands, Quantization(np.float32(1 / 16), 0))
    function, proof = freeze(model)
    assert "branches.0.0.add" in proof.nudges
    (node,) = (node for node in function.nodes if node.name == "branches.0.0.add")
    assert isinstance(node, Add)
    qa, qb = (function.quantization[name] for name in node.inputs)
    assert not add.disagreements(qa, qb, function.quantization[node.name])


def test_weights_are_int8_without_minus_128_at_the_largest_weight_over_127(model: QATStage2) -> None:
    function, _ = freeze(model)
    for node in function.nodes:
        if isinstance(node, Conv):
            leaf = model.get_submodule(node.name)
            weight = leaf.weight.detach().numpy()
            np.testing.assert_array_equal(node.weight_scale, np.abs(weight).max((1, 2, 3)) / np.float32(127))
            assert np.abs(node.weight.astype(int)).max((1, 2, 3)).tolist() == [127] * len(weight)
            error = node.weight * node.weight_scale[:, None, None, None] - weight
            assert (np.abs(error) <= node.weight_scale[:, None, None, None] * 0.5001).all()


def test_biases_lie_on_the_grid_of_their_accumulator(model: QATStage2) -> None:
    function, _ = freeze(model)
    for node in function.nodes:
        if isinstance(node, Conv):
            grid = function.bias_scale(node)
            bias = model.get_submodule(node.name).bias.detach().numpy()
            assert node.bias.dtype == np.int32
            assert np.abs(node.bias * grid.astype(float) - bias).max() <= 0.5001 * grid.max()


def test_no_sum_goes_past_the_reach_that_was_proved(small_frozen: tuple[IntegerFunction, Proof]) -> None:
    """The largest sum is worked out from the weights; the worst code for each tap reaches it and no more."""
    function, proof = small_frozen
    reached = 0
    for node in function.nodes:
        if isinstance(node, Conv):
            zero = function.quantization[node.input].zero_point
            for worst in (np.where(node.weight > 0, 127, -128), np.where(node.weight > 0, -128, 127)):
                sums = ((worst - zero) * node.weight.astype(int)).sum((1, 2, 3)) + node.bias
                reached = max(reached, int(np.abs(sums).max()))
    assert reached == proof.largest_accumulator < 2**24


@pytest.mark.parametrize(("weight", "bias"), [(0.0, 0.0), (0.0, 2.0), (1e-7, -2.0)])
def test_a_pruned_channel_keeps_its_bias(weight: float, bias: float, trained: Callable[[Stage2Config], Stage2]) -> None:
    """Training drives channels to (nearly) nothing but a bias; on the grid of such weights it would be no int32."""
    pruned = trained(CONFIG)
    with torch.no_grad():
        pruned.get_parameter("smooth.0.bn.weight")[1] = weight
        pruned.get_parameter("smooth.0.bn.bias")[1] = bias
    x = torch.randn(2, 4, 8, 8)
    function, proof = freeze(QATStage2.from_float(pruned).calibrate(x))
    q = function.output_quantization["y1"]
    y1 = q.dequantize(evaluate(function, function.input_quantization.quantize(x.numpy()))["y1"])
    assert np.abs(y1[:, 1] - bias / (1 + np.exp(-bias))).max() <= 1.5 * q.scale
    assert proof.largest_accumulator < 2**24


def test_a_bias_comes_back_from_float32_as_the_same_integer(trained: Callable[[Stage2Config], Stage2]) -> None:
    """Some converters write it as a float that the runtime divides again, by one way or another."""
    model = trained(CONFIG)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn.weight"):
                parameter.copy_(10.0 ** -torch.arange(len(parameter)))
    function, _ = freeze(QATStage2.from_float(model).calibrate(torch.randn(2, 4, 8, 8)))
    largest = 0
    for node in function.nodes:
        if isinstance(node, Conv):
            scale = function.bias_scale(node)
            real = node.bias.astype(np.float32) * scale
            for steps in (real / scale, real * (np.float32(1) / scale), real.astype(float) / scale):
                np.testing.assert_array_equal(np.rint(steps), node.bias)
            largest = max(largest, int(np.abs(node.bias).max()))
    assert 2**21 < largest <= 2**22 + 1


def test_the_frozen_codes_stand_for_the_float_networks_outputs(
    trained: Callable[[Stage2Config], Stage2], function: IntegerFunction, photographs: NDArray[np.float32]
) -> None:
    """On photographs, Y1 and Y2 keep a signal at least 25 dB over quantisation noise after training nothing."""
    codes = evaluate(function, function.input_quantization.quantize(photographs[:1]))
    with torch.no_grad():
        due = trained(Stage2Config())(torch.from_numpy(photographs[:1]))
    for (name, q), y in zip(function.output_quantization.items(), due, strict=True):
        noise = q.dequantize(codes[name]) - y.numpy()
        assert 10 * np.log10(np.square(y.numpy()).mean() / np.square(noise).mean()) > 25


def test_fake_quantised_training_saw_nearly_the_frozen_codes(
    model: QATStage2,
) -> None:
    """PyTorch's simulation rounds elsewhere; most codes are the same and none is far."""
    function, _ = freeze(model)
    q = function.input_quantization
    codes = np.random.default_rng(0).integers(-128, 128, (1, 4, 16, 16)).astype(np.int8)
    due = evaluate(function, codes)
    with torch.no_grad():
        outputs = model(torch.from_numpy(q.dequantize(codes)))
    for (name, q_out), y in zip(function.output_quantization.items(), outputs, strict=True):
        difference = np.abs(q_out.quantize(y.numpy()).astype(int) - due[name])
        assert difference.max() <= 3
        assert (difference > 0).mean() < 0.2


@pytest.mark.parametrize(
    "config",
    [
        Stage2Config(in_channels=3, num_channels=(5, 7), num_blocks=(0, 0)),
        Stage2Config(in_channels=3, num_channels=(4, 2), num_blocks=(0, 2), expansion=1),
        Stage2Config(in_channels=1, num_channels=(1, 1), num_blocks=(2, 0), expansion=4, antialias=False),
    ],
)
def test_any_configuration_freezes_with_its_count_of_nodes(
    config: Stage2Config, trained: Callable[[Stage2Config], Stage2]
) -> None:
    x = torch.randn(2, config.in_channels, 8, 12)
    function, proof = freeze(QATStage2.from_float(trained(config)).calibrate(x))
    blocks = sum(config.num_blocks)
    counts = {kind: sum(isinstance(node, kind) for node in function.nodes) for kind in (Conv, SiLU, Add, Resize)}
    assert counts == {Conv: 8 + 3 * blocks, SiLU: 4 + 3 * blocks, Add: 2 + blocks, Resize: 1}
    assert proof.nodes == {kind.__name__: count for kind, count in counts.items()}
    tensors = trace(function, function.input_quantization.quantize(x.numpy()[:1]))
    assert tensors[function.outputs["y1"]].shape == (1, config.num_channels[0], 8, 12)
    assert tensors[function.outputs["y2"]].shape == (1, config.num_channels[1], 4, 6)


def test_freezing_leaves_the_network_as_it_was(model: QATStage2) -> None:
    before = copy.deepcopy(model.state_dict())
    freeze(model.train())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_freezing_twice_gives_the_same_function(model: QATStage2) -> None:
    (one, proof_one), (two, proof_two) = freeze(model), freeze(model)
    assert one.quantization == two.quantization
    assert proof_one == proof_two


# refused


def test_a_network_that_was_never_calibrated_is_refused(trained: Callable[[Stage2Config], Stage2]) -> None:
    with pytest.raises(FreezeError, match="range of `features` was never set: calibrate"):
        freeze(QATStage2.from_float(trained(CONFIG)))


def test_one_range_that_was_never_set_is_named(model: QATStage2) -> None:
    model.branches[0][0].project.act.output.forget()
    with pytest.raises(FreezeError, match=r"range of `branches\.0\.0\.project\.act` was never set"):
        freeze(model)


@pytest.mark.parametrize("parameter", ["weight", "bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_is_refused(parameter: str, value: float, model: QATStage2) -> None:
    with torch.no_grad():
        model.get_parameter(f"branches.1.0.depthwise.conv.{parameter}").view(-1)[3] = value
    with pytest.raises(FreezeError, match=r"`branches\.1\.0\.depthwise\.conv` has a weight or bias that is not finite"):
        freeze(model)


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_and_positive_is_refused(scale: float, model: QATStage2) -> None:
    model.fuse_add[1].output.scale.fill_(scale)
    with pytest.raises(FreezeError, match=r"the scale of `fuse_add\.1` .* must be finite and positive"):
        freeze(model)


def test_a_term_that_is_minute_beside_its_sum_is_raised_to_what_kernels_take(model: QATStage2) -> None:
    """A routine case: residual branches that start at zero. Less than half a code of the sum is lost."""
    minute = model.branches[0][0].project.act.output
    minute.scale.fill_(1e-7)
    function, proof = freeze(model)
    q, out = (function.quantization[name] for name in ("branches.0.0.project.act", "branches.0.0.add"))
    assert 2**-10 <= q.scale / out.scale < 2**-10 * 1.02
    assert proof.raised["branches.0.0.project.act"] == pytest.approx(float(q.scale) / 1e-7, rel=1e-4)


def test_a_sum_in_which_the_terms_cancel_is_raised_to_what_kernels_take(model: QATStage2) -> None:
    model.fuse_add[0].output.scale.fill_(1e-6)
    function, proof = freeze(model)
    (node,) = (node for node in function.nodes if node.name == "fuse_add.0")
    largest = max(function.quantization[name].scale for name in node.inputs)
    assert largest / function.quantization[node.name].scale < 2**8
    assert "fuse_add.0" in proof.raised


def test_weights_that_are_minute_beside_the_result_keep_a_multiplier_that_kernels_take(model: QATStage2) -> None:
    with torch.no_grad():
        model.get_parameter("smooth.1.conv.weight").mul_(1e-12)
    function, _ = freeze(model)
    (node,) = (node for node in function.nodes if node.name == "smooth.1.conv")
    assert function.multiplier(node).min() >= 2**-32


def test_weights_that_are_enormous_beside_the_result_raise_its_scale(model: QATStage2) -> None:
    with torch.no_grad():
        model.get_parameter("smooth.1.conv.weight").mul_(1e7)
    function, proof = freeze(model)
    (node,) = (node for node in function.nodes if node.name == "smooth.1.conv")
    assert function.multiplier(node).max() < 2**8
    assert "smooth.1.conv" in proof.raised


def test_a_sum_past_what_float32_counts_is_no_obstacle_to_freezing(trained: Callable[[Stage2Config], Stage2]) -> None:
    """600 inputs of the largest weight and the farthest code: 600 * 127 * 255 is 19 million, past 2^24."""
    wide = trained(Stage2Config(in_channels=600, num_channels=(2, 2), num_blocks=(0, 0)))
    with torch.no_grad():
        wide.get_parameter("transition.b1_keep.conv.weight").fill_(0.01)
    _, proof = freeze(QATStage2.from_float(wide).calibrate(torch.rand(1, 600, 4, 4)))
    assert proof.largest_accumulator > 2**24


def test_a_network_whose_size_is_not_known_is_refused(model: QATStage2) -> None:
    model.size = None
    with pytest.raises(FreezeError, match=r"shape of `features` is not known: calibrate .* `freeze\(model, "):
        freeze(model)
    assert freeze(model, (1, 4, 8, 8))[0].tensors["features"].shape == (1, 4, 8, 8)


@pytest.mark.parametrize(
    ("module", "check", "answer", "message"),
    [
        (add, "disagreements", {"a rule": 1}, r"scale of `branches\.0\.0\.add` .* add all 65,536 code pairs"),
        (silu, "sigmoid_margin", 0.0, "keeps every sigmoid away from a tie"),
        (silu, "product_margin", 0.0, r"keeps every x\*sigmoid\(x\) away from a tie"),
    ],
)
def test_it_fails_if_no_nudge_makes_the_runtimes_agree(
    module: object, check: str, answer: object, message: str, model: QATStage2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, check, lambda *operands: answer)
    with pytest.raises(FreezeError, match=message):
        freeze(model)
