"""Evaluating saved Core ML programs: foreign packages, both precisions, both int8 encodings, and refusals."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import types
from coremltools.proto import Model_pb2
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  defines torch.ops.quantized_decomposed

from litehrnet_stage2.runtime.coreml.evaluate import evaluate
from litehrnet_stage2.runtime.coreml.mil import MilProgram

logging.getLogger("coremltools").setLevel(logging.ERROR)
codes = torch.ops.quantized_decomposed
FLOAT32, FLOAT16 = ct.precision.FLOAT32, ct.precision.FLOAT16
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")


def convert(module: nn.Module, x: Tensor, *, target: Any = ct.target.iOS17, precision: Any = FLOAT32) -> Any:
    """Plain coremltools, no pass chosen by this project."""
    exported = torch.export.export(module.eval(), (x,)).run_decompositions({})
    return ct.convert(exported, minimum_deployment_target=target, compute_precision=precision, skip_model_load=True)


def save(model: Any, folder: Path) -> MilProgram:
    path = folder / "saved.mlpackage"
    model.save(str(path))
    return MilProgram.load(path)


def run(program: MilProgram, x: Tensor) -> list[NDArray[Any]]:
    (feature,) = program.inputs
    outputs = evaluate(program, {feature.name: x.numpy()})
    return [outputs[tensor.name] for tensor in program.outputs]


class InvertedBottleneck(nn.Module):
    """Grouped, strided and depthwise convolutions, batch normalisation, a skip, bilinear upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16), nn.ReLU6())
        self.project = nn.Conv2d(16, 8, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.project(self.depthwise(self.expand(x)))
        return x + F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False), torch.tanh(y).mean((2, 3))


class Attention(nn.Module):
    """Linear layers, reshapes, transposes, matrix products and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Linear(12, 12) for _ in range(3))
        self.out = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (mix(x).reshape(2, 5, 3, 4).transpose(1, 2) for mix in self.mix)
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1)
        return torch.sigmoid(self.out((weights @ v).transpose(1, 2).reshape(2, 5, 12)))


class Gate(nn.Module):
    """Global pooling, a gate made of it, a concatenation, and a resize to a fixed size."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.restore = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.restore(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        y = torch.cat([x * gate, x - gate.clamp(0.25, 0.5)], 1)
        return F.interpolate(y, size=(7, 10), mode="bilinear", align_corners=False) / 3


FOREIGN: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "attention": (Attention, (2, 5, 12)),
    "bottleneck": (InvertedBottleneck, (1, 8, 10, 12)),
    "gate": (Gate, (2, 6, 5, 4)),
}


@pytest.mark.parametrize("target", [ct.target.iOS15, ct.target.iOS17, ct.target.iOS18], ids=lambda target: target.name)
@pytest.mark.parametrize(("precision", "tolerance"), [(FLOAT32, 1e-5), (FLOAT16, 5e-3)], ids=["float32", "float16"])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_package_agrees_with_its_torch_module(
    tmp_path: Path, name: str, precision: Any, tolerance: float, target: Any
) -> None:
    torch.manual_seed(0)
    kind, shape = FOREIGN[name]
    module, x = kind().eval(), torch.randn(shape)
    outputs = run(save(convert(module, x, target=target, precision=precision), tmp_path), x)
    with torch.no_grad():
        expected = module(x)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(outputs) == len(expected)
    for output, reference in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output.astype(np.float32), reference.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("encoding", [ct.target.iOS17, ct.target.iOS18], ids=["iOS17", "iOS18"])
def test_weights_compressed_by_coremltools_are_read(tmp_path: Path, encoding: Any) -> None:
    torch.manual_seed(0)
    module, x = nn.Conv2d(16, 32, 3), torch.randn(1, 16, 9, 9)
    model = cto.linear_quantize_weights(
        convert(module, x, target=encoding),
        cto.OptimizationConfig(cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0)),
    )
    program = save(model, tmp_path)
    constant = {ct.target.iOS17: "constexpr_affine_dequantize", ct.target.iOS18: "constexpr_blockwise_shift_scale"}
    assert program.operator_counts() == {constant[encoding]: 1, "conv": 1}

    weight = module.weight.detach()
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    with torch.no_grad():
        expected = F.conv2d(x, (weight / scale).round() * scale, module.bias)
    np.testing.assert_allclose(run(program, x)[0], expected.numpy(), atol=2e-5)


class Quantised(nn.Module):
    """An int8 convolution with SiLU; scales are powers of two, so that torch and Core ML divide alike."""

    def __init__(self, zero_point: int) -> None:
        super().__init__()
        self.zero_point = zero_point
        self.register_buffer("weight", torch.randint(-127, 128, (8, 4, 3, 3), dtype=torch.int8))
        self.register_buffer("scales", 2.0 ** torch.randint(-9, -6, (8,)))
        self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fake_quantise(x, 2.0**-5, self.zero_point)
        weight = codes.dequantize_per_channel(self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8)
        return self.fake_quantise(F.silu(F.conv2d(x, weight, self.bias, padding=1)), 2.0**-4, -100)

    @staticmethod
    def fake_quantise(x: Tensor, scale: float, zero_point: int) -> Tensor:
        parameters = scale, zero_point, -128, 127, torch.int8
        return codes.dequantize_per_tensor(codes.quantize_per_tensor(x, *parameters), *parameters)


@pytest.mark.parametrize("zero_point", [0, 7])
def test_both_int8_encodings_give_the_same_result_and_that_is_torchs(tmp_path: Path, zero_point: int) -> None:
    torch.manual_seed(0)
    module, x = Quantised(zero_point).eval(), torch.randn(1, 4, 12, 10)
    outputs: dict[Any, NDArray[Any]] = {}
    for precision in (FLOAT32, FLOAT16):
        for target, constant in (
            (ct.target.iOS17, "constexpr_affine_dequantize"),
            (ct.target.iOS18, "constexpr_blockwise_shift_scale"),
        ):
            program = save(convert(module, x, target=target, precision=precision), tmp_path)
            counts = program.operator_counts()
            assert (counts[constant], counts["quantize"], counts["dequantize"]) == (1, 2, 2)
            (outputs[precision, target],) = run(program, x)
        np.testing.assert_array_equal(outputs[precision, ct.target.iOS17], outputs[precision, ct.target.iOS18])
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_array_equal(outputs[FLOAT32, ct.target.iOS17], expected)
    # In float16 SiLU's argument is rounded first: a code may be its neighbour, never more.
    assert np.abs(outputs[FLOAT16, ct.target.iOS17].astype(np.float32) - expected).max() <= 2.0**-4


def float16_program(folder: Path, build: Any, *shapes: tuple[int, ...]) -> MilProgram:
    function = mb.program(
        input_specs=[mb.TensorSpec(shape, types.fp16) for shape in shapes], opset_version=ct.target.iOS17
    )(build)
    model = ct.convert(
        function,
        minimum_deployment_target=ct.target.iOS17,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    return save(model, folder)


def test_float16_rounds_after_each_operator_and_only_there(tmp_path: Path) -> None:
    x, y = (np.random.default_rng(i).standard_normal((4, 50)).astype(np.float16) for i in (0, 1))
    program = float16_program(tmp_path, lambda x, y: mb.sub(x=mb.mul(x=x, y=y), y=x), x.shape, y.shape)
    (output,) = evaluate(program, {"x": x, "y": y}).values()
    wide_x, wide_y = x.astype(np.float32), y.astype(np.float32)
    product = (wide_x * wide_y).astype(np.float16)
    assert output.dtype == np.float16
    np.testing.assert_array_equal(output, (product.astype(np.float32) - wide_x).astype(np.float16))
    assert (output != (wide_x * wide_y - wide_x).astype(np.float16)).any()


def test_float16_convolution_sums_in_float32(tmp_path: Path) -> None:
    # 2048 + 1 - 2048 + ...: a float16 sum would lose each 1 that comes after a 2048.
    x = np.tile(np.array([2048, 1, -2048, 1], np.float16), 16).reshape(1, 64, 1, 1)
    weight = np.ones((1, 64, 1, 1), np.float16)
    program = float16_program(tmp_path, lambda x: mb.conv(x=x, weight=weight), x.shape)
    (output,) = evaluate(program, {"x": x}).values()
    assert output.item() == 32


def test_float16_overflows_to_infinity(tmp_path: Path) -> None:
    x = np.array([300, -300, 255], np.float16)
    program = float16_program(tmp_path, lambda x: mb.mul(x=x, y=np.float16(256)), x.shape)
    (output,) = evaluate(program, {"x": x}).values()
    assert output.tolist() == [np.inf, -np.inf, 65280]


def test_wider_inputs_are_rounded_to_the_declared_type(tmp_path: Path) -> None:
    program = float16_program(tmp_path, lambda x: mb.identity(x=x), (3,))
    (output,) = evaluate(program, {"x": np.array([1 + 2**-12, 2049, 1e9])}).values()
    assert output.tolist() == [1, 2048, np.inf]


def test_integers_stay_exact_through_convolution_scale_and_quantise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (1, 32, 8, 8)).astype(np.float32)
    weight, bias = rng.integers(-127, 128, (16, 32, 3, 3)), rng.integers(-(2**20), 2**20, 16)
    multiplier = rng.uniform(1e-5, 1e-3, (16, 1, 1)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(x.shape)], opset_version=ct.target.iOS17)
    def function(x: Any) -> Any:
        y = mb.conv(x=x, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
        y = mb.quantize(input=mb.mul(x=y, y=multiplier), scale=np.float32(1), output_dtype="int8")
        return mb.dequantize(input=y, scale=np.float32(1))

    program = save(
        ct.convert(
            function,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ),
        tmp_path,
    )
    (output,) = run(program, torch.from_numpy(x))
    sums = F.conv2d(*(torch.from_numpy(v.astype(np.int64)) for v in (x, weight, bias))).numpy()
    assert np.abs(sums).max() < 2**24
    expected = np.rint(sums.astype(np.float32) * multiplier).clip(-128, 127)
    np.testing.assert_array_equal(output, expected)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "saved.mlpackage"
    convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()), torch.zeros(1, 3, 4, 4)).save(str(path))
    return path


def edited(package: Path, folder: Path, kind: str, **changes: str) -> MilProgram:
    """The program with the first operator of a kind changed: its type, or the tensor a parameter reads."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    item = next(item for item in block.operations if item.type == kind)
    item.type = changes.pop("type", kind)
    for parameter, name in changes.items():
        item.inputs[parameter].arguments.add().name = name
    copy = folder / "edited.mlpackage"
    for name in ("Manifest.json", "Data/com.apple.CoreML/weights/weight.bin"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if (package / name).exists():
            (copy / name).write_bytes((package / name).read_bytes())
    (copy / MODEL).write_bytes(model.SerializeToString())
    return MilProgram.load(copy)


def test_unknown_operator_is_named_with_its_output_and_those_that_are_known(package: Path, tmp_path: Path) -> None:
    program = edited(package, tmp_path, "silu", type="swish")
    with pytest.raises(ValueError, match=r"operator 'swish' \(output '.+'\) is not .*; those are abs, add, .*conv"):
        run(program, torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("silu", {"y": "input"}, r"operator 'silu' \(output '.+'\): .*unexpected keyword argument 'y'"),
        ("silu", {"x": "input"}, r"operator 'silu' .* is given 2 values for 'x', but that takes one"),
        ("silu", {"type": "conv"}, r"operator 'conv' .*missing 1 required positional argument: 'weight'"),
    ],
)
def test_misused_operator_is_named(
    package: Path, tmp_path: Path, kind: str, changes: dict[str, str], message: str
) -> None:
    program = edited(package, tmp_path, kind, **changes)
    with pytest.raises(ValueError, match=message):
        run(program, torch.zeros(1, 3, 4, 4))


def test_result_that_is_not_what_the_program_declares_is_refused(tmp_path: Path) -> None:
    program = float16_program(tmp_path, lambda x: mb.add(x=x, y=x), (2, 3))
    (add,) = program.operations
    (tensor,) = add.outputs
    object.__setattr__(tensor, "shape", (3, 2))
    with pytest.raises(ValueError, match=r"'add' .* computes float32\[2, 3\], but the program declares"):
        evaluate(program, {"x": np.zeros((2, 3), np.float16)})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"named \[\], but the program takes input float32\[1, 3, 4, 4\]"),
        ({"x": np.zeros((1, 3, 4, 4))}, r"named \['x'\]"),
        ({"input": np.zeros((1, 3, 4, 5))}, r"input 'input' is float64\[1, 3, 4, 5\], but"),
        ({"input": np.zeros((1, 3, 4, 4), np.int8)}, r"input 'input' is int8\[1, 3, 4, 4\], but"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(package: Path, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(MilProgram.load(package), inputs)


def test_reading_and_evaluating_a_package_imports_neither_torch_nor_coremltools(package: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import numpy as np; "
        "from litehrnet_stage2.runtime.coreml import MilProgram, evaluate; "
        "program = MilProgram.load(Path(sys.argv[1])); "
        "(x,) = program.inputs; evaluate(program, {x.name: np.zeros(x.shape, x.dtype)}); "
        "print(sorted({'torch', 'coremltools'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script, str(package)], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
