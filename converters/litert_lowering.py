"""LiteRT's form of each operator: what of the schema's operators XNNPACK computes exactly as the function says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from litehrnet_stage2.converters.side_by_side import side_by_side
from litehrnet_stage2.converters.tflite_file import TFLiteFile, quantized
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import LoweringError, Lowerings, check_lowered
from litehrnet_stage2.reference.quantization import QMIN

MOST_PARTS = 5  # of one concatenation, in XNNPACK


def joins(parts: int) -> int:
    """How many concatenations put so many tensors side by side."""
    return -(-(parts - 1) // (MOST_PARTS - 1))


class Graph:
    """The file so far, and the number of each tensor's codes; `names` says what some of them are called."""

    def __init__(self, function: IntegerFunction, names: Mapping[str, str] | None = None) -> None:
        check_lowered(function, LOWER, "LiteRT")
        self.function = function
        self.file = TFLiteFile()
        self.codes: dict[str, int] = {}
        self._names = names or {}

    def body(self) -> None:
        """Append every node of the function, from the inputs' codes to the outputs'."""
        for node in self.function.nodes:
            LOWER[type(node)](self, node)

    def shape(self, tensor: str) -> tuple[int, int, int, int]:
        """The shape `(1, H, W, C)` of a tensor of the function."""
        count, channels, height, width = self.function.tensors[tensor].shape
        return count, height, width, channels

    def write(self, tensor: str, name: str | None = None) -> int:
        """A new tensor for a tensor's codes; its number, which is in `codes` from now on."""
        q = self.function.quantization[tensor]
        self.codes[tensor] = self.inner(name or self._names.get(tensor, tensor), self.shape(tensor), q)
        return self.codes[tensor]

    def inner(self, name: str, shape: Sequence[int], q: Quantization) -> int:
        """A new tensor of codes that the function has no name for; its number."""
        return self.file.tensor(name, shape, "int8", quantized(q.scale, q.zero_point))

    def copied(self, tensor: str, name: str) -> int:
        """A copy of a tensor's codes; the number."""
        shape = self.shape(tensor)
        return self.reshaped(self.codes[tensor], self.inner(name, shape, self.function.quantization[tensor]), shape)

    def reshaped(self, value: int, into: int, shape: Sequence[int]) -> int:
        """The codes of one tensor in the shape of another, whose number is given back."""
        sizes = self.file.constant(f"shape/{into}", np.array(shape, np.int32))
        self.file.operator("RESHAPE", [value, sizes], into, schema.ReshapeOptionsT(newShape=list(shape)))
        return into

    def join(self, parts: Sequence[int], axis: int, output: int, q: Quantization) -> None:
        """Append what puts tensors side by side along an axis, five at a time, as XNNPACK takes them."""
        options = schema.ConcatenationOptionsT(axis=axis)
        while len(parts) > MOST_PARTS:
            shape = list(self.file.shape(parts[0]))
            shape[axis] = sum(self.file.shape(part)[axis] for part in parts[:MOST_PARTS])
            first = self.inner(f"parts/{output}", shape, q)
            self.file.operator("CONCATENATION", parts[:MOST_PARTS], first, options)
            parts = [first, *parts[MOST_PARTS:]]
        if len(parts) == 1:
            self.reshaped(parts[0], output, self.file.shape(output))
        else:
            self.file.operator("CONCATENATION", parts, output, options)

    def padded(self, value: int, tensor: str, reader: str, padding: tuple[int, int, int, int]) -> int:
        """A tensor's codes with its zero point around them, `(top, left, bottom, right)`; the number."""
        count, height, width, channels = self.file.shape(value)
        top, left, bottom, right = padding
        shape = (count, top + height + bottom, left + width + right, channels)
        padded = self.inner(f"{reader}/padded", shape, self.function.quantization[tensor])
        cells = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
        parts = [value, self.file.constant(f"{reader}/padding", cells)]
        self.file.operator("PAD", parts, padded, schema.PadOptionsT())
        return padded

    def wider(self, value: int, tensor: str, reader: str, cells: int) -> int:
        """A tensor's codes with so many cells side by side as one; the number."""
        if cells == 1:
            return value
        count, height, width, channels = self.file.shape(value)
        shape = (count, height, width // cells, cells * channels)
        return self.reshaped(value, self.inner(f"{reader}/wider", shape, self.function.quantization[tensor]), shape)


def _conv(graph: Graph, node: op.Conv) -> None:
    """Padding that is not what the schema's SAME gives is an operator of its own, which XNNPACK fuses."""
    form = side_by_side(node, graph.function.tensors[node.input].shape)
    conv, padding = form.conv, schema.Padding.VALID
    x = graph.wider(graph.codes[node.input], node.input, node.name, form.reads)
    if any(conv.padding):
        kernel = (conv.weight.shape[2], conv.weight.shape[3])
        if conv.padding == _same_padding(graph.file.shape(x), kernel, conv.stride, conv.dilation):
            padding = schema.Padding.SAME
        else:
            x = graph.padded(x, node.input, node.name, conv.padding)
    options = {
        "padding": padding,
        "strideH": conv.stride[0],
        "strideW": conv.stride[1],
        "dilationHFactor": conv.dilation[0],
        "dilationWFactor": conv.dilation[1],
    }
    if conv.depthwise:
        kind, weight, channels = "DEPTHWISE_CONV_2D", conv.weight.transpose(1, 2, 3, 0), 3
        made = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **options)
    else:
        kind, weight, channels = "CONV_2D", conv.weight.transpose(0, 2, 3, 1), 0
        made = schema.Conv2DOptionsT(**options)
    parameters = [
        graph.file.constant(f"{node.name}/weight", weight, quantized(conv.weight_scale, 0, dimension=channels)),
        graph.file.constant(f"{node.name}/bias", conv.bias, quantized(graph.function.bias_scale(conv), 0)),
    ]
    if form.writes == 1:
        graph.file.operator(kind, [x, *parameters], graph.write(node.name), made)
        return
    count, height, width, outputs = graph.shape(node.name)
    wide = (count, height, width // form.writes, form.writes * outputs)
    y = graph.inner(f"{node.name}/wide", wide, graph.function.quantization[node.name])
    graph.file.operator(kind, [x, *parameters], y, made)
    graph.reshaped(y, graph.write(node.name), graph.shape(node.name))


def _same_padding(
    shape: Sequence[int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[int, int, int, int]:
    """The padding `(top, left, bottom, right)` that the schema's SAME means for an input `(1, H, W, C)`."""
    height, width = (
        max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        for size, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True)
    )
    return height // 2, width // 2, height - height // 2, width - width // 2


def _silu(graph: Graph, node: op.SiLU) -> None:
    """XNNPACK fuses the two operators to one table of 256 entries."""
    x = graph.codes[node.input]
    gate = graph.inner(f"{node.name}/sigmoid", graph.shape(node.name), op.SIGMOID)
    graph.file.operator("LOGISTIC", [x], gate)
    graph.file.operator("MUL", [x, gate], graph.write(node.name), schema.MulOptionsT())


def _add(graph: Graph, node: op.Add) -> None:
    terms = [graph.codes[name] for name in node.inputs]
    graph.file.operator("ADD", terms, graph.write(node.name), schema.AddOptionsT())


def _resize(graph: Graph, node: op.Resize) -> None:
    size = graph.file.constant(f"{node.name}/size", np.array(graph.shape(node.name)[1:3], np.int32))
    options = schema.ResizeBilinearOptionsT(halfPixelCenters=True)
    graph.file.operator("RESIZE_BILINEAR", [graph.codes[node.input], size], graph.write(node.name), options)


CODES_TABLES = {"sigmoid": "LOGISTIC", "tanh": "TANH"}
"""By function: the operators that XNNPACK takes as a table of codes."""

FLOAT_TABLES = {"hardswish": "HARD_SWISH"}
"""By function: those that it takes in float alone; the margin of each of the 256 entries makes them exact."""

CLAMPS = {
    "identity": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
"""By function: the clamp behind a multiplication by one, a depthwise 1x1 convolution, that it is."""


def _table(graph: Graph, node: op.Table) -> None:
    x = graph.codes[node.input]
    if node.function in CLAMPS:
        _multiply_by_one(graph, node)
    elif node.function in CODES_TABLES:
        graph.file.operator(CODES_TABLES[node.function], [x], graph.write(node.name))
    else:
        before, after = (graph.file.tensor(f"{node.name}/{n}", graph.shape(node.name), "float32") for n in ("x", "y"))
        graph.file.operator("DEQUANTIZE", [x], before, schema.DequantizeOptionsT())
        graph.file.operator(FLOAT_TABLES[node.function], [before], after)
        graph.file.operator("QUANTIZE", [after], graph.write(node.name), schema.QuantizeOptionsT())


def _multiply_by_one(graph: Graph, node: op.Table) -> None:
    channels = graph.shape(node.name)[3]
    ones, zeros = np.ones((1, 1, 1, channels), np.int8), np.zeros(channels, np.int32)
    scale = np.full(channels, graph.function.quantization[node.input].scale)
    parameters = [
        graph.file.constant(f"{node.name}/weight", ones, quantized(np.ones(channels, np.float32), 0, dimension=3)),
        graph.file.constant(f"{node.name}/bias", zeros, quantized(scale, 0)),
    ]
    options = schema.DepthwiseConv2DOptionsT(
        padding=schema.Padding.VALID,
        strideH=1,
        strideW=1,
        depthMultiplier=1,
        fusedActivationFunction=CLAMPS[node.function],
    )
    reads = [graph.codes[node.input], *parameters]
    graph.file.operator("DEPTHWISE_CONV_2D", reads, graph.write(node.name), options)


def _mul(graph: Graph, node: op.Mul) -> None:
    factors = [graph.codes[name] for name in node.inputs]
    graph.file.operator("MUL", factors, graph.write(node.name), schema.MulOptionsT())


def _concat(graph: Graph, node: op.Concat) -> None:
    parts = [graph.codes[name] for name in node.inputs]
    graph.join(parts, 3, graph.write(node.name), graph.function.quantization[node.name])


def _nearest(graph: Graph, node: op.Nearest) -> None:
    """XNNPACK does not take the schema's own: rows of cells joined with themselves, then rows of lines."""
    _, height, width, channels = graph.shape(node.input)
    q, f = graph.function.quantization[node.name], node.factor
    cells, lines = (height * width, channels), (height, f * width * channels)
    value = graph.reshaped(graph.codes[node.input], graph.inner(f"{node.name}/cells", cells, q), cells)
    for shape, name, after in ((cells, "columns", lines), (lines, "rows", graph.shape(node.name))):
        joined = graph.inner(f"{node.name}/{name}", (shape[0], f * shape[1]), q)
        graph.join([value] * f, 1, joined, q)
        into = graph.inner(f"{node.name}/lines", after, q) if name == "columns" else graph.write(node.name)
        value = graph.reshaped(joined, into, after)


def _max_pool(graph: Graph, node: op.MaxPool) -> None:
    """Padding that is not what the schema's SAME gives is put around as the lowest codes, which never win."""
    if any(step > size for step, size in zip(node.stride, node.kernel, strict=True)):
        raise LoweringError(
            f"LiteRT has no exact form of MaxPool `{node.name}`, whose stride {node.stride} is larger than its window "
            f"{node.kernel}: leave that target out, or replace the operator"
        )
    x, padding = graph.codes[node.input], schema.Padding.VALID
    if any(node.padding):
        if pads_itself(node, graph.function):
            padding = schema.Padding.SAME
        else:
            top, left, bottom, right = node.padding
            x = _lowest_around(graph, _lowest_around(graph, x, node, 1, (top, bottom)), node, 2, (left, right))
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=node.stride[0],
        strideW=node.stride[1],
        filterHeight=node.kernel[0],
        filterWidth=node.kernel[1],
    )
    graph.file.operator("MAX_POOL_2D", [x], graph.write(node.name), options)


def pads_itself(node: op.MaxPool, function: IntegerFunction) -> bool:
    """Whether a pooling's padding is none, or what the schema's SAME gives."""
    _, _, height, width = function.tensors[node.input].shape
    return not any(node.padding) or node.padding == _same_padding((1, height, width, 1), node.kernel, node.stride)


def pool_joins(function: IntegerFunction, node: op.MaxPool) -> int:
    """How many concatenations put a pooling's padding around: one along each axis that has some."""
    top, left, bottom, right = node.padding
    return 0 if pads_itself(node, function) else bool(top or bottom) + bool(left or right)


def _lowest_around(graph: Graph, x: int, node: op.MaxPool, axis: int, cells: tuple[int, int]) -> int:
    """A tensor with the lowest code before and after it along an axis; the number."""
    if not any(cells):
        return x
    q = graph.function.quantization[node.name]
    shape = list(graph.file.shape(x))

    def lowest(count: int) -> list[int]:
        if not count:
            return []
        codes = np.full([*shape[:axis], count, *shape[axis + 1 :]], QMIN, np.int8)
        return [graph.file.constant(f"{node.name}/lowest", codes, quantized(q.scale, q.zero_point))]

    before, after = map(lowest, cells)
    padded = graph.inner(f"{node.name}/padded", [*shape[:axis], shape[axis] + sum(cells), *shape[axis + 1 :]], q)
    graph.join([*before, x, *after], axis, padded, q)
    return padded


def _mean(graph: Graph, node: op.Mean) -> None:
    axes = graph.file.constant(f"{node.name}/axes", np.array([1, 2], np.int32))
    options = schema.ReducerOptionsT(keepDims=True)
    graph.file.operator("MEAN", [graph.codes[node.input], axes], graph.write(node.name), options)


LOWER: Lowerings[Callable[[Graph, Any], None]] = {
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
"""By kind of node: appends its operators."""
