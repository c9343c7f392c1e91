"""Any network becomes a quantisation-aware module: its names, its rewrites, and what is refused in one sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.float_network import ReadError
from litehrnet_stage2.reference.freeze import FreezeError, freeze
from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
from litehrnet_stage2.reference.operators import Add, Conv, Table
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantization import PIXELS
from litehrnet_stage2.reference.settle import settle
from litehrnet_stage2.reference.stage2 import Stage2


class Network(nn.Module):
    """A network of one input whose forward is given, with modules by name."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._run = forward

    def forward(self, x: Tensor) -> object:
        return self._run(self, x)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = conv()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.a(x) + y
        return out


def conv(inputs: int = 4, outputs: int = 4, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)  # type: ignore[arg-type]


def bn(channels: int = 4) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.running_mean, std=0.3)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias, std=0.3)
    return norm


def filled(layer: nn.Conv2d, value: float) -> nn.Conv2d:
    nn.init.constant_(layer.weight, value)
    return layer


EXAMPLE = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(0))

REWRITTEN: dict[str, tuple[Network, list[str]]] = {
    "BatchNorm is folded": (Network(lambda m, x: m.b(m.a(x)), a=conv(), b=bn()), ["QuantConv"]),
    "BatchNorm alone is a depthwise convolution": (Network(lambda m, x: m.b(x), b=bn()), ["QuantConv"]),
    "BatchNorm of a tensor that others read is not folded": (
        Network(lambda m, x: m.b(y := m.a(x)) + y, a=conv(), b=bn()),
        ["QuantConv", "QuantConv", "QuantAdd"],
    ),
    "a normalisation goes into a convolution that pads nothing": (
        Network(lambda m, x: m.a((x - 0.5) / 2), a=nn.Conv2d(4, 6, 3, stride=2, groups=2)),
        ["QuantConv"],
    ),
    "BatchNorm before a convolution goes into it": (
        Network(lambda m, x: m.a(m.b(x)), a=conv(kernel=1), b=bn()),
        ["QuantConv"],
    ),
    "a factor alone goes into a convolution that pads": (Network(lambda m, x: m.a(x / 2), a=conv()), ["QuantConv"]),
    "a normalisation before padding stays a step of its own": (
        Network(lambda m, x: m.a((x - 0.5) / 2), a=conv()),
        ["QuantConv", "QuantConv"],
    ),
    "constants are one depthwise convolution": (Network(lambda m, x: (x - 0.5) / 2), ["QuantConv"]),
    "ReLU is the saturation of a convolution": (Network(lambda m, x: F.relu(m.a(x)), a=conv()), ["QuantConv"]),
    "ReLU6 is the saturation of an addition": (
        Network(lambda m, x: F.relu6(m.a(x) + x), a=conv()),
        ["QuantConv", "QuantAdd"],
    ),
    "ReLU elsewhere is a table": (
        Network(lambda m, x: F.relu(F.silu(m.a(x))), a=conv()),
        ["QuantConv", "QuantSiLU", "QuantTable"],
    ),
    "Hardsigmoid goes into the convolution": (Network(lambda m, x: F.hardsigmoid(m.a(x)), a=conv()), ["QuantConv"]),
    "Hardsigmoid elsewhere is a convolution": (
        Network(lambda m, x: F.hardsigmoid(F.silu(m.a(x))), a=conv()),
        ["QuantConv", "QuantSiLU", "QuantConv"],
    ),
    "Linear behind Flatten has a kernel as large as the map": (
        Network(lambda m, x: m.a(x.flatten(1)), a=nn.Linear(4 * 8 * 12, 5)),
        ["QuantConv"],
    ),
    "AvgPool is a depthwise convolution": (Network(lambda m, x: F.avg_pool2d(x, 2)), ["QuantConv"]),
    "padding becomes the convolution's": (
        Network(lambda m, x: m.a(F.pad(x, (0, 1, 0, 1))), a=nn.Conv2d(4, 4, 3, stride=2)),
        ["QuantConv"],
    ),
    "a projection comes before the resize": (
        Network(lambda m, x: m.a(F.interpolate(x, scale_factor=2, mode="bilinear")), a=conv(kernel=1)),
        ["QuantConv", "QuantResize"],
    ),
    "channels at the output are convolutions of their own": (
        Network(lambda m, x: {"heat": (y := m.a(x))[:, 0], "offset": y[:, 1:3]}, a=conv()),
        ["QuantConv", "QuantConv"],
    ),
    "a ReLU joined with an input that has negatives": (
        Network(lambda m, x: torch.cat([F.relu(m.a(x)), x], 1), a=conv()),
        ["QuantConv", "QuantTable", "QuantConcat"],
    ),
    "a Hardsigmoid joined with negatives": (
        Network(lambda m, x: torch.cat([F.hardsigmoid(m.a(x)), m.b(x)], 1), a=conv(), b=conv()),
        ["QuantConv", "QuantTable", "QuantConv", "QuantConcat"],
    ),
    "a SiLU joined with what it reads": (
        Network(lambda m, x: torch.cat([F.silu(x), x], 1)),
        ["QuantSiLU", "QuantTable", "QuantConcat"],
    ),
    "a product joined with its factor": (
        Network(lambda m, x: torch.cat([y := m.a(x), y * torch.sigmoid(m.b(x))], 1), a=conv(), b=conv()),
        ["QuantConv", "QuantConv", "QuantTable", "QuantMul", "QuantTable", "QuantConcat"],
    ),
    "arguments may be given by name": (
        Network(lambda m, x: torch.add(input=F.relu(input=m.a(input=x), inplace=True), other=x), a=conv()),
        ["QuantConv", "QuantAdd"],
    ),
    "Dropout and Identity go": (
        Network(lambda m, x: m.d(m.i(m.a(x))), a=conv(), d=nn.Dropout(), i=nn.Identity()),
        ["QuantConv"],
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_rewrite_keeps_what_the_network_computes(name: str) -> None:
    network, leaves = REWRITTEN[name]
    quantized = quantize(network, EXAMPLE)
    assert [type(quantized.get_submodule(step.name)).__name__ for step in quantized.run_order] == leaves
    with torch.no_grad():
        due = network.eval()(EXAMPLE)
        found = list(quantized(EXAMPLE).values())
    for y, wanted in zip(found, due.values() if isinstance(due, dict) else [due], strict=True):
        torch.testing.assert_close(y.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-5)
    function, _ = freeze(quantized.calibrate(EXAMPLE))
    codes = golden.evaluate(function, function.input_quantization.quantize(EXAMPLE.numpy()))
    for (label, q), wanted in zip(function.output_quantization.items(), found, strict=True):
        assert np.abs(q.dequantize(codes[label]) - wanted.numpy()).max() <= 8 * q.scale


def test_stage2_is_the_named_case_of_it() -> None:
    torch.manual_seed(0)
    stage2, features = Stage2().eval(), torch.randn(2, 32, 8, 12)
    named, _ = freeze(QATStage2.from_float(stage2).calibrate(features))
    read, _ = freeze(quantize(stage2, features, name="stage2", outputs=("y1", "y2")).calibrate(features))
    assert (read.tensors, dict(read.outputs)) == (named.tensors, dict(named.outputs))
    for one, other in zip(read.nodes, named.nodes, strict=True):
        assert (type(one), one.name, one.inputs) == (type(other), other.name, other.inputs)
        if isinstance(one, Conv) and isinstance(other, Conv):
            np.testing.assert_array_equal(one.weight, other.weight)
            np.testing.assert_array_equal(one.bias, other.bias)


# pixels


def pixel_network() -> QuantizedNetwork:
    torch.manual_seed(0)
    network = nn.Sequential(conv(3, 4), nn.SiLU(), conv(4, 2))
    return quantize(network, torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8))


def test_an_example_of_uint8_declares_pixels_whose_code_is_the_pixel_minus_128() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    function, _ = freeze(pixel_network().calibrate(images))
    assert function.input_quantization == PIXELS
    codes = function.input_quantization.quantize(images.numpy().astype(np.float32) / 255)
    np.testing.assert_array_equal(codes, images.numpy().astype(int) - 128)


def test_pixels_and_floats_of_them_are_the_same_to_the_network() -> None:
    quantized, images = pixel_network(), torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    quantized.calibrate(images)
    with torch.no_grad():
        assert torch.equal(quantized(images)["y0"], quantized(images.float() / 255)["y0"])


def test_an_input_that_is_pinned_is_never_nudged() -> None:
    """Powers of two, where runtimes part: the sum may move, or the freeze fails, but not the input."""
    q = PIXELS
    node = Add(name="y", inputs=("x", "x"))
    settled = settle([node], {"x": q, "y": type(q)(np.float32(q.scale * 2), -128)}, pinned={"x"})
    assert settled.quantization["x"] == q
    table = Table(name="x2", inputs=("x",), function="identity")
    assert settle([table], {"x": q, "x2": q}, pinned={"x"}).quantization["x"] == q


# an ordinary module


def test_tensors_that_a_concatenation_joins_share_one_quantiser() -> None:
    network = Network(lambda m, x: torch.cat([m.a(x), m.b(x)], 1), a=conv(), b=conv())
    quantized = quantize(network, EXAMPLE).calibrate(EXAMPLE)
    a, b = quantized.get_submodule("a"), quantized.get_submodule("b")
    assert a.output is b.output
    function, _ = freeze(quantized)
    assert len({function.quantization[name] for name in ("a", "b", next(iter(function.outputs.values())))}) == 1


def test_a_relu_among_negatives_is_a_table_of_its_own() -> None:
    network = Network(lambda m, x: torch.cat([F.relu(m.a(x)), m.b(x)], 1), a=conv(), b=conv())
    quantized = quantize(network, EXAMPLE)
    assert [type(quantized.get_submodule(step.name)).__name__ for step in quantized.run_order].count("QuantTable") == 1


def test_its_state_reloads_and_a_copy_is_a_network_of_its_own() -> None:
    network = nn.Sequential(conv(), nn.ReLU(), conv())
    quantized = quantize(network, EXAMPLE).calibrate(EXAMPLE)
    assert {"0.weight", "0.output.scale", "2.bias"} <= set(quantized.state_dict())
    again = quantize(network, EXAMPLE)
    again.load_state_dict(quantized.state_dict())
    twin = copy.deepcopy(quantized)
    with torch.no_grad():
        due = quantized(EXAMPLE)["y0"]
        assert torch.equal(again(EXAMPLE)["y0"], due)
        twin.get_parameter("0.weight").zero_()
        assert torch.equal(quantized(EXAMPLE)["y0"], due)
        assert not torch.equal(twin(EXAMPLE)["y0"], due)


def test_it_trains_in_an_ordinary_loop() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.SiLU(), conv())
    student = quantize(network, EXAMPLE).calibrate(EXAMPLE).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = (student(EXAMPLE)["y0"] - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    trained = {name: p for name, p in student.named_parameters() if name.endswith(("weight", "bias"))}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())


# refused

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "an unknown operator": (lambda: nn.Sequential(conv(), nn.GELU()), r"`1`: GELU has no int8 form .* SiLU"),
    "all of them at once": (
        lambda: nn.Sequential(nn.PReLU(), conv(), nn.Softplus()),
        r"`0`: PReLU .*; `2`: Softplus has no int8 form",
    ),
    "LeakyReLU": (lambda: nn.Sequential(conv(), nn.LeakyReLU()), r"`1`: LeakyReLU .* use ReLU or SiLU"),
    "a bilinear resize by 3": (
        lambda: Network(lambda m, x: m.a(F.interpolate(x, scale_factor=3, mode="bilinear")), a=conv()),
        r"`resize` is a bilinear resize by 3: only 2, 4 and 8",
    ),
    "a branch on values": (
        lambda: Network(lambda m, x: m.a(x) if x.sum() > 0 else x, a=conv()),
        r"`Network` cannot be read by torch\.fx .* may not branch",
    ),
    "weights used twice": (
        lambda: Network(lambda m, x: m.a(m.a(x)), a=conv()),
        r"`a.*`: it is used twice, and has weights: give each use a module",
    ),
    "two outputs of one tensor": (
        lambda: Network(lambda m, x: ((y := m.a(x)), y), a=conv()),
        r"two of the outputs y0, y1 are one tensor",
    ),
    "an output that is an input": (
        lambda: Network(lambda m, x: (m.a(x), x), a=conv()),
        r"the output `y1` is the input `x`",
    ),
    "an output that is an input by another name": (
        lambda: Network(lambda m, x: (m.a(x), m.i(x)), a=conv(), i=nn.Identity()),
        r"the output `y1` is an input",
    ),
    "channels of a sum": (
        lambda: Network(lambda m, x: (m.a(x) + x)[:, 1:], a=conv()),
        r"takes channels of what is no ungrouped convolution",
    ),
    "a transposed map": (
        lambda: Network(lambda m, x: m.a(x).transpose(2, 3), a=conv()),
        r"transpose has no int8 form",
    ),
    "a product with a map of one channel": (
        lambda: Network(lambda m, x: m.a(x) * m.b(x), a=conv(), b=conv(4, 1)),
        r"`mul`: mul of \[2, 4, 8, 12\] and \[2, 1, 8, 12\] is not known: .* or one of them \[N,C,1,1\]",
    ),
    "a sum with a vector": (
        lambda: Network(lambda m, x: m.a(x) + F.adaptive_avg_pool2d(x, 1), a=conv()),
        r"`add`: add of .* is not known: both must have one shape, resize or project",
    ),
    "a mean of rows": (
        lambda: Network(lambda m, x: m.a(x).mean(3, keepdim=True), a=conv()),
        r"`mean`: a mean is known over height and width alone",
    ),
    "two outputs of one name": (
        lambda: Network(lambda m, x: {0: m.a(x), "0": m.b(x)}, a=conv(), b=conv()),
        r"two outputs are called `0`: give each a name of its own",
    ),
    "an output without a name": (
        lambda: Network(lambda m, x: {"": m.a(x)}, a=conv()),
        r"an output has an empty name",
    ),
    "an output that is no tensor": (
        lambda: Network(lambda m, x: {"a": m.a(x), "b": None}, a=conv()),
        r"the output `b` is no tensor",
    ),
    "a convolution of other channels": (
        lambda: nn.Sequential(conv(), conv(3)),
        r"`Sequential` cannot run on the example inputs \(input \[2, 4, 8, 12\]\), it fails at `1`: Given groups=1",
    ),
    "a module that cannot be traced": (
        lambda: torch.jit.script(nn.Sequential(conv())),
        r"`RecursiveScriptModule` cannot be read by torch\.fx",
    ),
    "a module called as quantize's own": (
        lambda: Network(lambda m, x: m.pixels(x), pixels=conv()),
        r"a module called `pixels` is in the way .*: give it another name",
    ),
    "a tensor changed in place that is read again": (
        lambda: Network(lambda m, x: m.r(y := m.a(x)) + y, a=conv(), r=nn.ReLU(inplace=True)),
        r"`r` changes `a` in place, which is read again after it: use its result alone, or set `inplace=False`",
    ),
    "a change in place whose result is thrown away": (
        lambda: Network(lambda m, x: (y := m.a(x), y.add_(1))[0], a=conv()),
        r"`add_` changes `a` in place, which is read again",
    ),
    "a step that is random": (
        lambda: Network(lambda m, x: F.dropout(m.a(x)), a=conv()),
        r"`y0` is not what `Network` computes in eval\(\) .* random",
    ),
    "a tensor changed through a view of it": (
        lambda: Network(lambda m, x: (y := m.a(x), y.view(-1).mul_(2))[0].contiguous(), a=conv()),
        r"`y0` is not what `Network` computes in eval\(\) .* through a view",
    ),
    "an average that leaves the padding out": (
        lambda: Network(lambda m, x: F.avg_pool2d(m.a(x), 3, 1, 1, count_include_pad=False), a=conv()),
        r"avg_pool2d with count_include_pad=False is not known: leave it out",
    ),
    "an argument that only its place names": (
        lambda: Network(lambda m, x: F.avg_pool2d(m.a(x), 3, 1, 1, False, False), a=conv()),
        r"with 6 arguments is not known: give the rest by name",
    ),
    "a resize that filters": (
        lambda: Network(lambda m, x: F.interpolate(m.a(x), scale_factor=2, mode="bilinear", antialias=True), a=conv()),
        r"interpolate with antialias=True is not known",
    ),
    "a division that rounds": (
        lambda: Network(lambda m, x: torch.div(m.a(x), 2, rounding_mode="floor"), a=conv()),
        r"div with rounding_mode='floor' is not known",
    ),
    "weights that are not finite": (
        lambda: nn.Sequential(conv(), filled(conv(), float("nan"))),
        r"`1\.weight` holds values that are NaN or infinite: load weights that are finite",
    ),
    "weights of another dtype": (
        lambda: nn.Sequential(conv()).half(),
        r"`0\.weight` is torch\.float16: a network of float32 is due",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_quantised_is_named_in_one_sentence(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ReadError, match=message) as caught:
        quantize(make(), EXAMPLE)
    assert "\n" not in str(caught.value)
    assert "tlparse" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_examples_are_float32_or_uint8(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=f"the input `input` is {dtype}: give float32, or uint8 where it is pixels"):
        quantize(nn.Sequential(conv()), EXAMPLE.to(dtype))


def test_a_class_in_a_networks_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes a torch\.nn\.Module, but was given .*: make one first"):
        quantize(Stage2, EXAMPLE)  # type: ignore[arg-type]


def test_a_gate_may_stand_on_either_side_of_a_product() -> None:
    network = Network(
        lambda m, x: torch.sigmoid(m.g(x.mean((2, 3), keepdim=True))) * m.a(x), a=conv(), g=conv(kernel=1)
    )
    function, _ = freeze(quantize(network, EXAMPLE).calibrate(EXAMPLE))
    codes = golden.evaluate(function, function.input_quantization.quantize(EXAMPLE.numpy()))["y0"]
    with torch.no_grad():
        due = network(EXAMPLE)
    assert isinstance(due, Tensor)
    q = function.output_quantization["y0"]
    assert np.abs(q.dequantize(codes) - due.numpy()).max() <= 8 * q.scale


def test_names_of_outputs_are_as_many_as_outputs_and_differ() -> None:
    with pytest.raises(ReadError, match="1 outputs; 2 different names are needed"):
        quantize(nn.Sequential(conv()), EXAMPLE, outputs=("a", "b"))


def test_a_network_that_was_never_calibrated_is_refused() -> None:
    with pytest.raises(FreezeError, match="range of `input` was never set: calibrate"):
        freeze(quantize(nn.Sequential(conv()), EXAMPLE))


@pytest.mark.parametrize("counts", [(0, 0), (2, 1)])
def test_inputs_are_calibrated_on_as_many_examples_each(counts: tuple[int, int]) -> None:
    quantized = quantize(TwoInputs(), (EXAMPLE, EXAMPLE))
    with pytest.raises(InputError, match="as many examples of each input, one at least, but was given"):
        quantized.calibrate(EXAMPLE[: counts[0]], EXAMPLE[: counts[1]])


@pytest.mark.parametrize("zeros", [torch.zeros_like(EXAMPLE), torch.zeros(EXAMPLE.shape, dtype=torch.uint8)])
def test_an_input_that_is_all_zero_is_not_calibrated_on(zeros: Tensor) -> None:
    quantized = quantize(TwoInputs(), (EXAMPLE, zeros))
    with pytest.raises(InputError, match=r"examples of `\w+` to calibrate on must hold .* but every value is zero"):
        quantized.calibrate(EXAMPLE, zeros)


def test_weights_that_training_made_not_finite_are_refused() -> None:
    quantized = quantize(nn.Sequential(conv()), EXAMPLE).calibrate(EXAMPLE)
    with torch.no_grad():
        quantized.get_parameter("0.weight").view(-1)[0] = float("nan")
    with pytest.raises(FreezeError, match="`0` has a weight or bias that is not finite"):
        freeze(quantized)


def test_reading_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.Dropout()).train()
    before = copy.deepcopy(network.state_dict())
    quantize(network, EXAMPLE)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_modules_called_input_and_steps_keep_their_names() -> None:
    network = Network(lambda m, x: m.steps(m.input(x)), input=conv(), steps=conv())
    quantized = quantize(network, torch.randn(2, 4, 8, 12))
    assert {"input.weight", "steps.weight"} <= set(quantized.state_dict())
    assert [step.name for step in quantized.run_order] == ["input", "steps"]


def test_a_convolution_alone_is_a_network() -> None:
    quantized = quantize(conv(), torch.randn(2, 4, 8, 12))
    assert [step.name for step in quantized.run_order] == ["conv2d"]
    assert quantized.input_names == ("input",)
