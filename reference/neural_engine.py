"""The Neural Engine's shape of a frozen Stage2: int8 where convolutions read, float16 everywhere else.

Not the integer function: the Neural Engine computes in float16 between convolutions, so a SiLU or an
addition keeps more than 8 bits, and its codes are nobody's but its own. Same weights, same ranges; judged
by signal to noise and by the task, never by codes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import QMAX, QMIN, IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered
from litehrnet_stage2.reference.operators import Add, Conv, Resize, SiLU
from litehrnet_stage2.reference.qat import QATStage2, QuantSiLU
from litehrnet_stage2.reference.qdq_module import convolve, dequantize, quantize, upsample
from litehrnet_stage2.reference.quantizers import ActivationQuantizer

MOST_WIDENING = 1.25
"""A range is made symmetric (zero point 0) if that widens it, and so coarsens its step, by no more than this."""

SMALLEST_NORMAL = 2.0**-14  # of float16: a scale below it loses bits


class NeuralEngineModule(nn.Module):
    """The float inputs of a function in, its float outputs out; exported, then converted with float16 compute.

    Raises:
        LoweringError: the function has an operator that this form does not know.
        ValueError: a scale is too small for float16.
    """

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        check_lowered(function, LOWER, "the Neural Engine's form")
        self.function = function
        self.quantization = read_by_convolutions(function)
        for node in function.nodes:
            if isinstance(node, Conv):
                scale = node.weight_scale.astype(np.float16).astype(np.float32)
                bias = node.bias * function.bias_scale(node)
                self.register_buffer(_key(node, "weight"), torch.from_numpy(node.weight))
                self.register_buffer(_key(node, "scale"), torch.from_numpy(scale))
                self.register_buffer(_key(node, "zero"), torch.zeros(len(scale), dtype=torch.int64))
                self.register_buffer(_key(node, "bias"), torch.from_numpy(bias.astype(np.float32)))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Evaluate node by node."""
        function = self.function
        tensors = {name: self._round(name, x) for name, x in zip(function.inputs, values, strict=True)}
        for node in function.nodes:
            y = LOWER[type(node)](self, node, *(tensors[name] for name in node.inputs))
            tensors[node.name] = self._round(node.name, y)
        return tuple(tensors[tensor] for tensor in function.outputs.values())

    def _round(self, name: str, x: Tensor) -> Tensor:
        q = self.quantization.get(name)
        return x if q is None else dequantize(quantize(x, q), q)


def _conv(module: NeuralEngineModule, node: Conv, x: Tensor) -> Tensor:
    weight, scale, zero, bias = (module.get_buffer(_key(node, part)) for part in ("weight", "scale", "zero", "bias"))
    weight = torch.ops.quantized_decomposed.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)
    return convolve(x, weight, bias, node)


LOWER: Lowerings[Callable[..., Tensor]] = {
    Conv: _conv,
    SiLU: lambda module, node, x: F.silu(x),
    Add: lambda module, node, a, b: a + b,
    Resize: lambda module, node, x: upsample(x, node.factor),
}
"""By kind of node: its result in float, of the floats it reads."""


def read_by_convolutions(function: IntegerFunction) -> dict[str, Quantization]:
    """The quantisation of every tensor that a convolution reads, fit for float16, symmetric where that is cheap.

    Raises:
        ValueError: a scale is too small for float16.
    """
    read = {node.input for node in function.nodes if isinstance(node, Conv)}
    return {name: _for_float16(name, function.quantization[name]) for name in function.quantization if name in read}


def train_for_neural_engine(model: QATStage2) -> QATStage2:
    """Have a calibrated network fake-quantise, in place, as the Neural Engine's form does; returns it.

    Only what a convolution reads is rounded, at float16 scales. `NeuralEngineModule(freeze(model)[0])` is then
    the same function, up to weight scales in float16.

    Raises:
        FreezeError: the network was not calibrated.
        ValueError: a scale is too small for float16.
    """
    function, _ = freeze(model)
    rounded = read_by_convolutions(function)
    for name, module in model.named_modules():
        match module:
            case ActivationQuantizer():
                tensor = model.input_names[0] if module is model.input else name.removesuffix(".output")
                module.bypassed = tensor not in rounded
                if q := rounded.get(tensor):
                    low, high = ((code - q.zero_point) * float(q.scale) for code in (QMIN, QMAX))
                    module.set_range(low, high)
            case QuantSiLU():
                module.rounds_sigmoid = False
    return model


def _for_float16(name: str, q: Quantization) -> Quantization:
    steps = max(q.zero_point - QMIN, QMAX - q.zero_point)  # from zero to the farther end
    widening = 2 * steps / (QMAX - QMIN)
    scale, zero_point = (q.scale * steps / QMAX, 0) if widening <= MOST_WIDENING else (q.scale, q.zero_point)
    if scale < SMALLEST_NORMAL:
        raise ValueError(
            f"the scale of `{name}` (={scale:.3g}) is below {SMALLEST_NORMAL:.3g}, the least float16 holds in full: "
            "the features are far smaller than a trained network's; convert without the Neural Engine's targets"
        )
    return Quantization(np.float32(np.float16(scale)), zero_point)


def _key(node: Conv, part: str) -> str:
    return f"{node.name}.{part}".replace(".", "_")
