"""The integer function as a torch module, for `torch.export`: quantised codes between float operators.

This is a way to *write down* the function in the dialect exporters read (`quantized_decomposed`
quantise and dequantise around each operator). Evaluated by PyTorch it is a float simulation that misses
near-ties; the golden evaluator says what the codes are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.functional import convolve, upsample
from litehrnet_stage2.reference.integer_function import QMAX, QMIN, IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered
from litehrnet_stage2.reference.operators import SIGMOID, Add, Conv, Resize, SiLU
from litehrnet_stage2.reference.upstream.torch import quantized_decomposed

_ops = quantized_decomposed()
Read: TypeAlias = Callable[[str], Tensor]
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
            if isinstance(node, Conv):
                self.register_buffer(_key(node.name, "weight"), torch.from_numpy(node.weight))
                self.register_buffer(_key(node.name, "scale"), torch.from_numpy(node.weight_scale))
                self.register_buffer(_key(node.name, "zero"), torch.zeros(len(node.weight), dtype=torch.int64))
                bias = node.bias.astype("float32") * function.bias_scale(node)
                self.register_buffer(_key(node.name, "bias"), torch.from_numpy(bias))

    def forward(self, *codes: Tensor) -> tuple[Tensor, ...]:
        """Evaluate node by node."""
        tensors = dict(zip(self.function.inputs, codes, strict=True))
        quantization = self.function.quantization

        def read(name: str) -> Tensor:
            return dequantize(tensors[name], quantization[name])

        for node in self.function.nodes:
            tensors[node.name] = quantize(LOWER[type(node)](self, node, read), quantization[node.name])
        return tuple(tensors[tensor] for tensor in self.function.outputs.values())


class FloatQDQModule(nn.Module):
    """`QDQModule` with float32 in and out, of the same shapes."""

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        self.codes = QDQModule(function)
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


def _conv(module: QDQModule, node: Conv, read: Read) -> Tensor:
    weight, scale, zero, bias = (
        module.get_buffer(_key(node.name, part)) for part in ("weight", "scale", "zero", "bias")
    )
    weight = _ops.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)
    return convolve(read(node.input), weight, bias, node)


def _silu(module: QDQModule, node: SiLU, read: Read) -> Tensor:
    sigmoid = quantize(torch.sigmoid(read(node.input)), SIGMOID)
    return read(node.input) * dequantize(sigmoid, SIGMOID)


def _add(module: QDQModule, node: Add, read: Read) -> Tensor:
    return read(node.inputs[0]) + read(node.inputs[1])


def _resize(module: QDQModule, node: Resize, read: Read) -> Tensor:
    return upsample(read(node.input), node.factor)


LOWER: Lowerings[Callable[[QDQModule, Any, Read], Tensor]] = {Conv: _conv, SiLU: _silu, Add: _add, Resize: _resize}
"""By kind of node: its result in float, before it is quantised."""


def _key(node: str, part: str) -> str:
    return f"{node}.{part}".replace(".", "_")
