"""The integer function as a torch module, for `torch.export`: quantised codes between float operators.

This is a way to *write down* the function in the dialect exporters read (`quantized_decomposed`
quantise and dequantise around each operator). Evaluated by PyTorch it is a float simulation that misses
near-ties; the golden evaluator says what the codes are.
"""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers the quantized_decomposed operators
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.integer_function import (
    INPUT,
    QMAX,
    QMIN,
    SIGMOID_SCALE,
    SIGMOID_ZERO_POINT,
    Add,
    Conv,
    IntegerFunction,
    Quantization,
    Resize,
    SiLU,
)
from litehrnet_stage2.reference.stage2 import upsample2x

_ops = torch.ops.quantized_decomposed
_SIGMOID = Quantization(SIGMOID_SCALE, SIGMOID_ZERO_POINT)


class FrozenStage2(nn.Module):
    """Codes in, codes out.

    Shapes: int8 `[B, in_channels, H, W]` -> int8 `[B, C1, H, W]`, int8 `[B, C2, H/2, W/2]`.

    Every read dequantises anew: XNNPACK fuses `x * sigmoid(x)` into one table only if each intermediate
    has a single reader.
    """

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        self.function = function
        for node in function.nodes:
            if isinstance(node, Conv):
                self.register_buffer(_key(node.name, "weight"), torch.from_numpy(node.weight))
                self.register_buffer(_key(node.name, "scale"), torch.from_numpy(node.weight_scale))
                self.register_buffer(_key(node.name, "zero"), torch.zeros(len(node.weight), dtype=torch.int64))
                bias = node.bias.astype("float32") * function.bias_scale(node)
                self.register_buffer(_key(node.name, "bias"), torch.from_numpy(bias))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate node by node."""
        quantization = self.function.quantization
        tensors = {INPUT: codes}

        def read(name: str) -> Tensor:
            return dequantize(tensors[name], quantization[name])

        for node in self.function.nodes:
            match node:
                case Conv():
                    y = self._conv(read(node.input), node)
                case SiLU():
                    sigmoid = quantize(torch.sigmoid(read(node.input)), _SIGMOID)
                    y = read(node.input) * dequantize(sigmoid, _SIGMOID)
                case Add():
                    y = read(node.inputs[0]) + read(node.inputs[1])
                case Resize():
                    y = upsample2x(read(node.input))
            tensors[node.name] = quantize(y, quantization[node.name])
        y1, y2 = self.function.outputs
        return tensors[y1], tensors[y2]

    def _conv(self, x: Tensor, node: Conv) -> Tensor:
        weight, scale, zero, bias = (
            self.get_buffer(_key(node.name, part)) for part in ("weight", "scale", "zero", "bias")
        )
        weight = _ops.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)
        return F.conv2d(x, weight, bias, node.stride, node.padding, groups=node.groups)


class FloatFrozenStage2(nn.Module):
    """`FrozenStage2` with float32 features in and float32 `Y1`, `Y2` out, of the same shapes."""

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        self.codes = FrozenStage2(function)
        self.input = function.input_quantization
        self.output = tuple(function.output_quantization.values())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise, evaluate, dequantise."""
        y1, y2 = self.codes(quantize(features, self.input))
        return dequantize(y1, self.output[0]), dequantize(y2, self.output[1])


def quantize(x: Tensor, q: Quantization) -> Tensor:
    """Float32 to int8 codes, any shape."""
    y: Tensor = _ops.quantize_per_tensor(x, float(q.scale), q.zero_point, QMIN, QMAX, torch.int8)
    return y


def dequantize(codes: Tensor, q: Quantization) -> Tensor:
    """Int8 codes to float32, any shape."""
    y: Tensor = _ops.dequantize_per_tensor(codes, float(q.scale), q.zero_point, QMIN, QMAX, torch.int8)
    return y


def _key(node: str, part: str) -> str:
    return f"{node}.{part}".replace(".", "_")
