"""ONNX: the integer function as QuantizeLinear/DequantizeLinear around float operators, activations uint8.

ONNX Runtime fuses each such group into one integer operator. uint8 activations with int8 weights are the
pair that has a fast kernel on x86 and on Arm; a code is 128 higher than in the integer function, and so
is each zero point.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from litehrnet_stage2.converters.coverage import Coverage, OperatorNames, always, counted
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, Border
from litehrnet_stage2.reference.integer_function import QMAX, QMIN, IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.10
TO_UINT8 = 128


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the inputs in float32, each of its tensor's shape, in; the outputs in float32 out.

    Raises:
        CoverageError: ONNX Runtime would leave an operator in float.
        LoweringError: ONNX Runtime has no exact form of an operator.
    """
    model = build(function)
    coverage = coverage_of(model).check(expected_coverage(function), "onnx")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """Every operator in int8 but those that are exact in float: the bilinear resize and most tables."""
    counts = counted(function, OPERATORS)
    counts["QuantizeLinear"] += len(function.inputs)
    counts["DequantizeLinear"] += len(function.outputs)
    return classified(counts)


def build(function: IntegerFunction) -> onnx.ModelProto:
    """The model with float32 at its border, before any optimisation; equal functions give equal bytes."""
    graph = _Graph(function)
    for name in function.inputs:
        graph.quantize(name, graph.codes(name), function.quantization[name])
    graph.body()
    for output, tensor in function.outputs.items():
        graph.dequantize(graph.codes(tensor), output, function.quantization[tensor])
    return graph.model(TensorProto.FLOAT, ARTIFACTS["onnx"].border)


def build_codes(function: IntegerFunction) -> onnx.ModelProto:
    """The model with uint8 codes at its border, channels last: nothing is quantised or dequantised there.

    ONNX Runtime's convolutions of codes read channels last too: it cancels these transposes against its own.
    """
    graph = _Graph(function)
    for name in function.inputs:
        graph.operator("Transpose", [name], graph.codes(name), perm=[0, 3, 1, 2])
    graph.body()
    for output, tensor in function.outputs.items():
        graph.operator("Transpose", [graph.codes(tensor)], output, perm=[0, 2, 3, 1])
    return graph.model(TensorProto.UINT8, ARTIFACTS["onnx-codes"].border)


class _Graph:
    """The nodes and initialisers so far."""

    def __init__(self, function: IntegerFunction) -> None:
        check_lowered(function, LOWER, "ONNX Runtime")
        self.function = function
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def body(self) -> None:
        """Append every node of the function, from the inputs' codes to the outputs'."""
        for node in self.function.nodes:
            LOWER[type(node)](self, node)

    def model(self, kind: TensorProto.DataType, border: Border) -> onnx.ModelProto:
        """The model of these nodes, with elements of a kind at its border, in the border's layout."""

        def described(name: str, tensor: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, border.shape(self.function.tensors[tensor].shape))

        inputs = [described(name, name) for name in self.function.inputs]
        outputs = [described(name, tensor) for name, tensor in self.function.outputs.items()]
        model = helper.make_model(
            helper.make_graph(self.nodes, self.function.name, inputs, outputs, list(self.initializers.values())),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="litehrnet-stage2",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def codes(self, tensor: str) -> str:
        """The name of a tensor's codes."""
        return f"{tensor}/codes"

    def value(self, node: op.Operator) -> str:
        """The name of a node's result in float; not that of a border, which a module may be called too."""
        borders = {*self.function.inputs, *self.function.outputs}
        return f"{node.name}/value" if node.name in borders else node.name

    def constant(self, name: str, value: Any) -> str:
        """An initialiser; the name."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def operator(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output; the output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))
        return output

    def quantize(self, x: str, output: str, q: Quantization) -> None:
        self.operator("QuantizeLinear", [x, *self.parameters(output, q.scale, q.zero_point + TO_UINT8)], output)

    def dequantize(self, codes: str, output: str, q: Quantization) -> str:
        parameters = self.parameters(output, q.scale, q.zero_point + TO_UINT8)
        return self.operator("DequantizeLinear", [codes, *parameters], output)

    def read(self, tensor: str, reader: str) -> str:
        """A tensor as float, dequantised for one reader alone."""
        return self.dequantize(self.codes(tensor), f"{tensor}/for/{reader}", self.function.quantization[tensor])

    def write(self, tensor: str, x: str) -> None:
        """Quantise `x` into a tensor's codes."""
        self.quantize(x, self.codes(tensor), self.function.quantization[tensor])

    def parameters(self, prefix: str, scale: np.float32, zero_point: int) -> list[str]:
        """The scale and the uint8 zero point of a quantise or dequantise."""
        return [
            self.constant(f"{prefix}/scale", np.float32(scale)),
            self.constant(f"{prefix}/zero_point", np.uint8(zero_point)),
        ]

    def per_channel(self, name: str, codes: NDArray[Any], scale: NDArray[np.float32]) -> str:
        """Constant codes dequantised along their first axis; the float tensor."""
        zero_points = self.constant(f"{name}/zero_point", np.zeros(len(codes), codes.dtype))
        inputs = [self.constant(f"{name}/codes", codes), self.constant(f"{name}/scale", scale), zero_points]
        return self.operator("DequantizeLinear", inputs, name, axis=0)


def _conv(graph: _Graph, node: op.Conv) -> None:
    x = graph.read(node.input, node.name)
    weight = graph.per_channel(f"{node.name}/weight", node.weight, node.weight_scale)
    bias = graph.per_channel(f"{node.name}/bias", node.bias, graph.function.bias_scale(node))
    dilations = {} if node.dilation == (1, 1) else {"dilations": node.dilation}
    y = graph.operator(
        "Conv",
        [x, weight, bias],
        graph.value(node),
        kernel_shape=node.weight.shape[2:],
        strides=node.stride,
        pads=node.padding,
        group=node.groups,
        **dilations,
    )
    graph.write(node.name, y)


def _silu(graph: _Graph, node: op.SiLU) -> None:
    sigmoid = graph.operator("Sigmoid", [graph.read(node.input, f"{node.name}/sigmoid")], f"{node.name}/sigmoid")
    graph.quantize(sigmoid, f"{node.name}/sigmoid/codes", op.SIGMOID)
    gate = graph.dequantize(f"{node.name}/sigmoid/codes", f"{node.name}/gate", op.SIGMOID)
    graph.write(node.name, graph.operator("Mul", [graph.read(node.input, node.name), gate], graph.value(node)))


def _add(graph: _Graph, node: op.Add) -> None:
    terms = [graph.read(name, node.name) for name in node.inputs]
    graph.write(node.name, graph.operator("Add", terms, graph.value(node)))


def _resize(graph: _Graph, node: op.Resize) -> None:
    """Resize the codes as numbers: their own scale and zero point play no part.

    Dequantised with a scale that is a little larger than what it is quantised back with, each tie is broken
    upwards, as XNNPACK rounds.
    """
    grid = f"{node.name}/grid"
    parameters = graph.parameters(grid, node.tie_breaking_scale, 0)
    graph.operator("DequantizeLinear", [graph.codes(node.input), *parameters], grid)
    scales = graph.constant(f"{node.name}/scales", np.array([1, 1, node.factor, node.factor], np.float32))
    y = graph.operator(
        "Resize",
        [grid, "", scales],
        graph.value(node),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    graph.quantize(y, graph.codes(node.name), Quantization(np.float32(1), -TO_UINT8))


def _table(graph: _Graph, node: op.Table) -> None:
    """A sigmoid becomes a table in ONNX Runtime; others stay in float, between a quantise and a dequantise.

    Where codes are only quantised anew, a concatenation of one tensor stands between: ONNX Runtime makes a table of it.
    With nothing between, it would drop the first of the two roundings.
    """
    x = graph.read(node.input, node.name)
    kind = _in_float(graph.function, node)
    if kind is None:
        x = graph.operator("Concat", [x], graph.value(node), axis=1)
    elif kind == "Clip":
        bounds = [graph.constant(f"{node.name}/{name}", np.float32(at)) for name, at in (("low", 0), ("high", 6))]
        x = graph.operator(kind, [x, *bounds], graph.value(node))
    else:
        x = graph.operator(kind, [x], graph.value(node))
    graph.write(node.name, x)


def _in_float(function: IntegerFunction, node: op.Table) -> str | None:
    """The operator that a table needs before it is quantised; none where the saturation of the codes does its work."""
    q = function.quantization[node.name]
    if node.function == "relu":
        return None if q.zero_point == QMIN else "Relu"
    if node.function == "relu6":
        low, high = (q.scale * np.float32(code - q.zero_point) for code in (QMIN, QMAX))
        return None if low >= 0 and high <= 6 else "Clip"
    return {"identity": None, "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish"}[node.function]


def _table_operators(function: IntegerFunction, node: op.Table) -> tuple[str, ...]:
    """What ONNX Runtime makes of it."""
    match _in_float(function, node):
        case None:
            return ("QLinearConcat",)
        case "Sigmoid":
            return ("QLinearSigmoid",)
        case "HardSwish":
            return ("DequantizeLinear", "HardSigmoid", "Mul", "QuantizeLinear")
        case kind:
            return ("DequantizeLinear", kind, "QuantizeLinear")


def _mul(graph: _Graph, node: op.Mul) -> None:
    factors = [graph.read(name, f"{node.name}/{i}") for i, name in enumerate(node.inputs)]
    graph.write(node.name, graph.operator("Mul", factors, graph.value(node)))


def _concat(graph: _Graph, node: op.Concat) -> None:
    graph.operator("Concat", [graph.codes(name) for name in node.inputs], graph.codes(node.name), axis=1)


def _nearest(graph: _Graph, node: op.Nearest) -> None:
    scales = graph.constant(f"{node.name}/scales", np.array([1, 1, node.factor, node.factor], np.float32))
    graph.operator(
        "Resize",
        [graph.codes(node.input), "", scales],
        graph.codes(node.name),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _max_pool(graph: _Graph, node: op.MaxPool) -> None:
    graph.operator(
        "MaxPool",
        [graph.codes(node.input)],
        graph.codes(node.name),
        kernel_shape=node.kernel,
        strides=node.stride,
        pads=node.padding,
    )


def _mean(graph: _Graph, node: op.Mean) -> None:
    x = graph.read(node.input, node.name)
    graph.write(node.name, graph.operator("GlobalAveragePool", [x], graph.value(node)))


LOWER: Lowerings[Callable[[_Graph, Any], None]] = {
    op.Conv: _conv,
    op.SiLU: _silu,
    op.Add: _add,
    op.Resize: _resize,
    op.Table: _table,
    op.Mul: _mul,
    op.Concat: _concat,
    op.Nearest: _nearest,
    op.MaxPool: _max_pool,
    op.Mean: _mean,
}
"""By kind of node: appends its ONNX nodes."""


OPERATORS: Lowerings[OperatorNames] = {
    op.Conv: always("QLinearConv"),
    op.SiLU: always("QLinearSigmoid", "QLinearMul"),
    op.Add: always("QLinearAdd"),
    op.Resize: always("DequantizeLinear", "Resize", "QuantizeLinear"),
    op.Table: _table_operators,
    op.Mul: always("QLinearMul"),
    op.Concat: always("Concat on codes"),
    op.Nearest: always("Resize on codes"),
    op.MaxPool: always("MaxPool on codes"),
    op.Mean: always("QLinearGlobalAveragePool"),
}
"""By kind of node: what ONNX Runtime is left with after its own optimisation."""


def classified(counts: Counter[str]) -> Coverage:
    """Operators by their names: those that work on codes, those in float, and what converts between the two."""
    boundary = {kind: counts[kind] for kind in ("QuantizeLinear", "DequantizeLinear")}
    others = {kind: count for kind, count in counts.items() if kind not in boundary}
    int8 = {kind: count for kind, count in others.items() if kind.startswith("QLinear") or kind.endswith("on codes")}
    floating = {kind: count for kind, count in others.items() if kind not in int8}
    return Coverage(int8=int8, floating=floating, boundary=boundary, partitions=1)


def _named(node: onnx.NodeProto) -> str:
    """The kind of a node; of one that may work on codes or in float, which of the two, told by what only codes need."""
    nearest = any(attribute.name == "mode" and attribute.s == b"nearest" for attribute in node.attribute)
    kind = str(node.op_type).removeprefix("Nhwc")
    return f"{kind} on codes" if kind in ("Concat", "MaxPool") or (kind == "Resize" and nearest) else kind


def coverage_of(model: onnx.ModelProto) -> Coverage:
    """Count the operators that ONNX Runtime is left with after its own optimisation on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        counts = Counter(_named(node) for node in onnx.load(options.optimized_model_filepath).graph.node)
    counts.pop("Transpose", None)  # moves codes between NCHW and NHWC, computes nothing
    return classified(counts)
