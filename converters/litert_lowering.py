"""LiteRT's form of each operator: what of the schema's operators XNNPACK computes exactly as the function says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from litehrnet_stage2.converters.tflite_file import TFLiteFile, quantized
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered
from litehrnet_stage2.reference.operators import SIGMOID, Add, Conv, Resize, SiLU


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
        """Of a tensor of the function: `(1, H, W, C)`."""
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
        copy = self.inner(name, shape, self.function.quantization[tensor])
        sizes = self.file.constant(f"{name}/shape", np.array(shape, np.int32))
        self.file.operator("RESHAPE", [self.codes[tensor], sizes], copy, schema.ReshapeOptionsT(newShape=list(shape)))
        return copy

    def padded(self, tensor: str, reader: str, padding: tuple[int, int, int, int]) -> int:
        """A tensor's codes with its zero point around it, `(top, left, bottom, right)`; the number."""
        count, height, width, channels = self.shape(tensor)
        top, left, bottom, right = padding
        shape = (count, top + height + bottom, left + width + right, channels)
        padded = self.inner(f"{reader}/padded", shape, self.function.quantization[tensor])
        cells = np.array([(0, 0), (top, bottom), (left, right), (0, 0)], np.int32)
        self.file.operator(
            "PAD", [self.codes[tensor], self.file.constant(f"{reader}/padding", cells)], padded, schema.PadOptionsT()
        )
        return padded


def _conv(graph: Graph, node: Conv) -> None:
    """Padding that is not what the schema's SAME gives is an operator of its own, which XNNPACK fuses."""
    x, padding = graph.codes[node.input], schema.Padding.VALID
    if any(node.padding):
        kernel = (node.weight.shape[2], node.weight.shape[3])
        if node.padding == _same_padding(graph.shape(node.input), kernel, node.stride, node.dilation):
            padding = schema.Padding.SAME
        else:
            x = graph.padded(node.input, node.name, node.padding)
    options = {
        "padding": padding,
        "strideH": node.stride[0],
        "strideW": node.stride[1],
        "dilationHFactor": node.dilation[0],
        "dilationWFactor": node.dilation[1],
    }
    if node.depthwise:
        kind, weight, channels = "DEPTHWISE_CONV_2D", node.weight.transpose(1, 2, 3, 0), 3
        made = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **options)
    else:
        kind, weight, channels = "CONV_2D", node.weight.transpose(0, 2, 3, 1), 0
        made = schema.Conv2DOptionsT(**options)
    parameters = [
        graph.file.constant(f"{node.name}/weight", weight, quantized(node.weight_scale, 0, dimension=channels)),
        graph.file.constant(f"{node.name}/bias", node.bias, quantized(graph.function.bias_scale(node), 0)),
    ]
    graph.file.operator(kind, [x, *parameters], graph.write(node.name), made)


def _same_padding(
    shape: Sequence[int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[int, int, int, int]:
    """The padding `(top, left, bottom, right)` that the schema's SAME means for an input `(1, H, W, C)`."""
    height, width = (
        max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        for size, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True)
    )
    return height // 2, width // 2, height - height // 2, width - width // 2


def _silu(graph: Graph, node: SiLU) -> None:
    """XNNPACK fuses the two operators to one table of 256 entries."""
    x = graph.codes[node.input]
    gate = graph.inner(f"{node.name}/sigmoid", graph.shape(node.name), SIGMOID)
    graph.file.operator("LOGISTIC", [x], gate)
    graph.file.operator("MUL", [x, gate], graph.write(node.name), schema.MulOptionsT())


def _add(graph: Graph, node: Add) -> None:
    terms = [graph.codes[name] for name in node.inputs]
    graph.file.operator("ADD", terms, graph.write(node.name), schema.AddOptionsT())


def _resize(graph: Graph, node: Resize) -> None:
    size = graph.file.constant(f"{node.name}/size", np.array(graph.shape(node.name)[1:3], np.int32))
    options = schema.ResizeBilinearOptionsT(halfPixelCenters=True)
    graph.file.operator("RESIZE_BILINEAR", [graph.codes[node.input], size], graph.write(node.name), options)


LOWER: Lowerings[Callable[[Graph, Any], None]] = {Conv: _conv, SiLU: _silu, Add: _add, Resize: _resize}
"""By kind of node: appends its operators."""
