"""ONNX: the integer function as QuantizeLinear/DequantizeLinear around float operators, activations uint8.

ONNX Runtime fuses each such group into one integer operator. uint8 activations with int8 weights are the
pair that has a fast kernel on x86 and on Arm; a code is 128 higher than in the integer function, and so
is each zero point.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from litehrnet_stage2.converters.coverage import Coverage, node_counts
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import (
    INPUT,
    OUTPUTS,
    SIGMOID_SCALE,
    SIGMOID_ZERO_POINT,
    Add,
    Conv,
    IntegerFunction,
    Quantization,
    Resize,
    SiLU,
)

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.10
TO_UINT8 = 128

# One part in 4096 more than the scale it is quantised back with. The resize's values lie on a grid of 1/16,
# so this breaks each tie upwards, as XNNPACK rounds, and moves nothing else: 255 / 4096 < 1/16.
TIE_BREAKING_SCALE = np.float32(1 + 2**-12)

_SIGMOID = Quantization(SIGMOID_SCALE, SIGMOID_ZERO_POINT)


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: float32 `features [1, in_channels, height, width]` in, float32 `y1`, `y2` out.

    Raises:
        CoverageError: ONNX Runtime would leave an operator in float.
    """
    model = build(function, height=deployment.height, width=deployment.width)
    coverage = coverage_of(model).check(expected_coverage(function), "onnx")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """Every operator in int8 but the resize, which is exact in float with its own scale."""
    count = node_counts(function)
    return Coverage(
        int8={
            "QLinearConv": count[Conv],
            "QLinearSigmoid": count[SiLU],
            "QLinearMul": count[SiLU],
            "QLinearAdd": count[Add],
        },
        floating={"Resize": count[Resize]},
        boundary={"QuantizeLinear": 1 + count[Resize], "DequantizeLinear": 2 + count[Resize]},
        partitions=1,
    )


def build(function: IntegerFunction, *, height: int, width: int) -> onnx.ModelProto:
    """The model with float32 at its border, before any optimisation; equal functions give equal bytes."""
    graph = _Graph(function, {})
    graph.quantize(INPUT, graph.codes(INPUT), function.input_quantization)
    graph.body()
    for output, tensor in zip(OUTPUTS, function.outputs, strict=True):
        graph.dequantize(graph.codes(tensor), output, function.quantization[tensor])
    return graph.model(TensorProto.FLOAT, height=height, width=width)


def build_codes(function: IntegerFunction, *, height: int, width: int) -> onnx.ModelProto:
    """The model with uint8 codes at its border: nothing is quantised or dequantised there."""
    border = {INPUT: INPUT, **dict(zip(function.outputs, OUTPUTS, strict=True))}
    graph = _Graph(function, border)
    graph.body()
    return graph.model(TensorProto.UINT8, height=height, width=width)


class _Graph:
    """The nodes and initialisers so far; `names` says what some tensors' codes are called."""

    def __init__(self, function: IntegerFunction, names: Mapping[str, str]) -> None:
        self.function = function
        self.names = names
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def body(self) -> None:
        """Append every node of the function, from the input's codes to the outputs'."""
        for node in self.function.nodes:
            match node:
                case Conv():
                    self.conv(node)
                case SiLU():
                    self.silu(node)
                case Add():
                    terms = [self.read(name, node.name) for name in node.inputs]
                    self.write(node.name, self.operator("Add", terms, node.name))
                case Resize():
                    self.resize(node)

    def model(self, kind: TensorProto.DataType, *, height: int, width: int) -> onnx.ModelProto:
        """The model of these nodes, with elements of a kind at its border."""
        config = self.function.config
        c1, c2 = config.num_channels
        shapes = ((1, c1, height, width), (1, c2, height // 2, width // 2))
        features = helper.make_tensor_value_info(INPUT, kind, (1, config.in_channels, height, width))
        outputs = [
            helper.make_tensor_value_info(name, kind, shape) for name, shape in zip(OUTPUTS, shapes, strict=True)
        ]
        model = helper.make_model(
            helper.make_graph(self.nodes, "stage2", [features], outputs, list(self.initializers.values())),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="litehrnet-stage2",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def codes(self, tensor: str) -> str:
        """The name of a tensor's codes."""
        return self.names.get(tensor, f"{tensor}/codes")

    def constant(self, name: str, value: Any) -> str:
        """An initialiser; the name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def operator(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output; the output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return output

    def quantize(self, x: str, output: str, q: Quantization) -> None:
        self.operator("QuantizeLinear", [x, *self._parameters(output, q.scale, q.zero_point + TO_UINT8)], output)

    def dequantize(self, codes: str, output: str, q: Quantization) -> str:
        parameters = self._parameters(output, q.scale, q.zero_point + TO_UINT8)
        return self.operator("DequantizeLinear", [codes, *parameters], output)

    def read(self, tensor: str, reader: str) -> str:
        """A tensor as float, dequantised for one reader alone."""
        return self.dequantize(self.codes(tensor), f"{tensor}/for/{reader}", self.function.quantization[tensor])

    def write(self, tensor: str, x: str) -> None:
        """Quantise `x` into a tensor's codes."""
        self.quantize(x, self.codes(tensor), self.function.quantization[tensor])

    def conv(self, node: Conv) -> None:
        x = self.read(node.input, node.name)
        weight = self._per_channel(f"{node.name}/weight", node.weight, node.weight_scale)
        bias = self._per_channel(f"{node.name}/bias", node.bias, self.function.bias_scale(node))
        k = node.weight.shape[2]
        y = self.operator(
            "Conv",
            [x, weight, bias],
            node.name,
            kernel_shape=[k, k],
            strides=[node.stride] * 2,
            pads=[node.padding] * 4,
            group=node.groups,
        )
        self.write(node.name, y)

    def silu(self, node: SiLU) -> None:
        sigmoid = self.operator("Sigmoid", [self.read(node.input, f"{node.name}/sigmoid")], f"{node.name}/sigmoid")
        self.quantize(sigmoid, f"{node.name}/sigmoid/codes", _SIGMOID)
        gate = self.dequantize(f"{node.name}/sigmoid/codes", f"{node.name}/gate", _SIGMOID)
        self.write(node.name, self.operator("Mul", [self.read(node.input, node.name), gate], node.name))

    def resize(self, node: Resize) -> None:
        """On the codes as numbers: their own scale and zero point play no part."""
        grid = f"{node.name}/grid"
        parameters = self._parameters(grid, TIE_BREAKING_SCALE, 0)
        self.operator("DequantizeLinear", [self.codes(node.input), *parameters], grid)
        scales = self.constant(f"{node.name}/scales", np.array([1, 1, 2, 2], np.float32))
        y = self.operator(
            "Resize",
            [grid, "", scales],
            node.name,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        self.quantize(y, self.codes(node.name), Quantization(np.float32(1), -TO_UINT8))

    def _parameters(self, prefix: str, scale: np.float32, zero_point: int) -> list[str]:
        return [
            self.constant(f"{prefix}/scale", np.float32(scale)),
            self.constant(f"{prefix}/zero_point", np.uint8(zero_point)),
        ]

    def _per_channel(self, name: str, codes: NDArray[Any], scale: NDArray[np.float32]) -> str:
        zero_points = self.constant(f"{name}/zero_point", np.zeros(len(codes), codes.dtype))
        inputs = [self.constant(f"{name}/codes", codes), self.constant(f"{name}/scale", scale), zero_points]
        return self.operator("DequantizeLinear", inputs, name, axis=0)


def coverage_of(model: onnx.ModelProto) -> Coverage:
    """Count the operators that ONNX Runtime is left with after its own optimisation on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    counts.pop("Transpose", None)  # moves codes between NCHW and NHWC, computes nothing
    boundary = {kind: counts.pop(kind, 0) for kind in ("QuantizeLinear", "DequantizeLinear")}
    int8 = {kind: counts.pop(kind) for kind in list(counts) if kind.startswith("QLinear")}
    return Coverage(int8=int8, floating=dict(counts), boundary=boundary, partitions=1)
