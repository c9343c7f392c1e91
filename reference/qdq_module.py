"""The integer function as a torch module, for `torch.export`: quantised codes between float operators.

This is a way to *write down* the function in the dialect exporters read (`quantized_decomposed`
quantise and dequantise around each operator). Evaluated by PyTorch it is a float simulation that misses
near-ties; the golden evaluator says what the codes are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.functional import ACTIVATIONS, convolve, max_pool, pad, upsample
from litehrnet_stage2.reference.integer_function import QMAX, QMIN, IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered
from litehrnet_stage2.reference.upstream.torch_2_13 import quantized_decomposed

_ops = quantized_decomposed()
ReadTensor: TypeAlias = Callable[[str], Tensor]
"""Gives a tensor in float, dequantised anew."""


class QDQModule(nn.Module):
    """Codes in, codes out: int8 `[B, ...]` of each input -> int8 `[B, ...]` of each output.

    Every read dequantises anew: XNNPACK fuses `x * sigmoid(x)` into one table only if each intermediate
    has a single reader.
    """

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        check_lowered(function, LOWER, "the exported module")
        self.function = function
        for node in function.nodes:
            if isinstance(node, op.Conv):
                conv = self.form(node)
                self.register_buffer(_key(node.name, "weight"), torch.from_numpy(conv.weight))
                self.register_buffer(_key(node.name, "scale"), torch.from_numpy(conv.weight_scale))
                self.register_buffer(_key(node.name, "zero"), torch.zeros(len(conv.weight), dtype=torch.int64))
                bias = conv.bias.astype("float32") * function.bias_scale(conv)
                self.register_buffer(_key(node.name, "bias"), torch.from_numpy(bias))
            elif isinstance(node, op.Table) and node.function in CLAMPS:
                channels = function.tensors[node.name].shape[1]
                self.register_buffer(_key(node.name, "weight"), torch.ones(channels, 1, 1, 1, dtype=torch.int8))
                self.register_buffer(_key(node.name, "scale"), torch.ones(channels))
                self.register_buffer(_key(node.name, "zero"), torch.zeros(channels, dtype=torch.int64))

    def forward(self, *codes: Tensor) -> tuple[Tensor, ...]:
        """Evaluate node by node."""
        tensors = dict(zip(self.function.inputs, codes, strict=True))
        quantization = self.function.quantization

        def read(name: str) -> Tensor:
            return dequantize(tensors[name], quantization[name])

        for node in self.function.nodes:
            tensors[node.name] = quantize(LOWER[type(node)](self, node, read), quantization[node.name])
        return tuple(tensors[tensor] for tensor in self.function.outputs.values())

    def form(self, conv: op.Conv) -> op.Conv:
        """The convolution that is written for one of the function; a subclass may write another with its codes."""
        return conv

    def convolve(self, conv: op.Conv, x: Tensor) -> Tensor:
        """What `form` gave for the convolution of that name, of its input in float, before it is quantised."""
        weight, scale, zero, bias = (
            self.get_buffer(_key(conv.name, part)) for part in ("weight", "scale", "zero", "bias")
        )
        weight = _ops.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)
        top, left, bottom, right = conv.padding
        if (top, left) != (bottom, right):  # an operator of its own, which needs codes on both sides
            x = requantize(pad(x, conv.padding), self.function.quantization[conv.input])
            conv = replace(conv, padding=(0, 0, 0, 0))
        return convolve(x, weight, bias, conv)


class FloatQDQModule(nn.Module):
    """A module of codes with float32 in and out, of the same shapes."""

    def __init__(self, codes: QDQModule) -> None:
        super().__init__()
        self.codes, function = codes, codes.function
        self.inputs = tuple(function.quantization[name] for name in function.inputs)
        self.outputs = tuple(function.output_quantization.values())

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Quantise, evaluate, dequantise."""
        outputs = self.codes(*(quantize(x, q) for x, q in zip(values, self.inputs, strict=True)))
        return tuple(dequantize(codes, q) for codes, q in zip(outputs, self.outputs, strict=True))


def quantize(x: Tensor, q: Quantization) -> Tensor:
    """Float32 to int8 codes, any shape."""
    y: Tensor = _ops.quantize_per_tensor(x, float(q.scale), q.zero_point, QMIN, QMAX, torch.int8)
    return y


def dequantize(codes: Tensor, q: Quantization) -> Tensor:
    """Int8 codes to float32, any shape."""
    y: Tensor = _ops.dequantize_per_tensor(codes, float(q.scale), q.zero_point, QMIN, QMAX, torch.int8)
    return y


def requantize(x: Tensor, q: Quantization) -> Tensor:
    """Float on the grid of the codes, through them: between two operators that exporters are to see as int8."""
    return dequantize(quantize(x, q), q)


def _conv(module: QDQModule, node: op.Conv, read: ReadTensor) -> Tensor:
    return module.convolve(node, read(node.input))


def _silu(module: QDQModule, node: op.SiLU, read: ReadTensor) -> Tensor:
    sigmoid = quantize(torch.sigmoid(read(node.input)), op.SIGMOID)
    return read(node.input) * dequantize(sigmoid, op.SIGMOID)


def _add(module: QDQModule, node: op.Add, read: ReadTensor) -> Tensor:
    return read(node.inputs[0]) + read(node.inputs[1])


def _resize(module: QDQModule, node: op.Resize, read: ReadTensor) -> Tensor:
    return upsample(read(node.input), node.factor)


CLAMPS = ("identity", "relu", "relu6")
"""Tables that are a depthwise 1x1 convolution with ones, and a clamp behind it.

A clamp of its own, XNNPACK puts into the convolution before it, and the first of two roundings is lost.
"""


def _table(module: QDQModule, node: op.Table, read: ReadTensor) -> Tensor:
    x = read(node.input)
    if node.function in CLAMPS:
        ones, scale, zero = (module.get_buffer(_key(node.name, part)) for part in ("weight", "scale", "zero"))
        x = F.conv2d(x, _ops.dequantize_per_channel(ones, scale, zero, 0, -127, 127, torch.int8), groups=len(ones))
    return ACTIVATIONS[node.function](x)


def _mul(module: QDQModule, node: op.Mul, read: ReadTensor) -> Tensor:
    return read(node.inputs[0]) * read(node.inputs[1])


MOST_JOINED = 5  # tensors that one concatenation of XNNPACK takes


def concatenations(count: int) -> list[int]:
    """How many tensors each concatenation joins, one after another, so that `count` become one."""
    sizes = []
    while count > MOST_JOINED:
        sizes.append(MOST_JOINED)
        count -= MOST_JOINED - 1
    return [*sizes, count]


def _concat(module: QDQModule, node: op.Concat, read: ReadTensor) -> Tensor:
    terms = [read(name) for name in node.inputs]
    q = module.function.quantization[node.name]
    for size in concatenations(len(terms)):
        joined = torch.cat(terms[:size], dim=1)
        if len(terms) == size:
            break
        terms = [requantize(joined, q), *terms[size:]]
    return joined


def _nearest(module: QDQModule, node: op.Nearest, read: ReadTensor) -> Tensor:
    return F.interpolate(read(node.input), scale_factor=node.factor, mode="nearest")


def _max_pool(module: QDQModule, node: op.MaxPool, read: ReadTensor) -> Tensor:
    return max_pool(read(node.input), node)


def _mean(module: QDQModule, node: op.Mean, read: ReadTensor) -> Tensor:
    return read(node.input).mean(dim=(2, 3), keepdim=True)


LOWER: Lowerings[Callable[[QDQModule, Any, ReadTensor], Tensor]] = {
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
"""By kind of node: its result in float, before it is quantised."""


def _key(node: str, part: str) -> str:
    return f"{node}.{part}".replace(".", "_")
