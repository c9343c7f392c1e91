"""Gives a frozen Stage2 the Neural Engine's shape: int8 where convolutions read, float16 everywhere else.

Not the integer function: the Neural Engine computes in float16 between convolutions, so a SiLU or an
addition keeps more than 8 bits, and its codes are nobody's but its own. Same weights, same ranges; judged
by signal to noise and by the task, never by codes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.functional import convolve, upsample
from litehrnet_stage2.reference.integer_function import QMAX, QMIN, IntegerFunction, Quantization
from litehrnet_stage2.reference.leaves import QuantSiLU
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered
from litehrnet_stage2.reference.operators import Add, Conv, Operator, Resize, SiLU
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.qdq_module import dequantize, quantize
from litehrnet_stage2.reference.quantizers import ActivationQuantizer

MOST_WIDENING = 1.25
"""A range is made symmetric (zero point 0) if that widens it, and so coarsens its step, by no more than this."""

SMALLEST_NORMAL = 2.0**-14  # of float16: a scale below it loses bits
SMALLEST_WEIGHT_SCALE = 2.0**-17  # float16 is off by 1/256 there, half a code of the largest weight
LARGEST = 65504  # of float16
_ADVICE = "convert without coreml-ane and executorch-coreml, or train with features and weights nearer to 1"


class NeuralEngineModule(nn.Module):
    """The float inputs of a function in, its float outputs out; exported, then converted with float16 compute.

    Raises:
        LoweringError: the function has an operator that this form does not know.
        InputError: float16 cannot hold a scale, a bias or a tensor's range.
    """

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        check_lowered(function, LOWER, "the Neural Engine's form")
        self.function = function
        self.quantization = read_by_convolutions(function)
        for node in function.nodes:
            if isinstance(node, Conv):
                scale = _weight_scale(node)
                bias = node.bias * function.bias_scale(node)
                _check_largest(f"a bias of `{node.name}`", np.abs(bias).max())
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
            if saturates(function, node):
                y = F.relu(y)
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


def saturates(function: IntegerFunction, node: Operator) -> bool:
    """Whether the saturation of a node's codes is a ReLU, which float16 has to be told."""
    return isinstance(node, (Conv, Add)) and function.quantization[node.name].zero_point == QMIN


def read_by_convolutions(function: IntegerFunction) -> dict[str, Quantization]:
    """The quantisation of every tensor that a convolution reads, fit for float16, symmetric where that is cheap.

    Raises:
        InputError: float16 cannot hold a scale or a tensor's range.
    """
    for name, q in function.quantization.items():
        _check_largest(f"a value of `{name}`", float(q.scale) * max(q.zero_point - QMIN, QMAX - q.zero_point))
    read = {node.input for node in function.nodes if isinstance(node, Conv)}
    return {name: _for_float16(name, function.quantization[name]) for name in function.quantization if name in read}


def train_for_neural_engine(model: QATStage2) -> QATStage2:
    """Have a calibrated network fake-quantise, in place, as the Neural Engine's form does; returns it.

    Only what a convolution reads is rounded, at float16 scales. `NeuralEngineModule(freeze(model)[0])` is then
    the same function, up to weight scales in float16.

    Raises:
        FreezeError: the network was not calibrated.
        InputError: float16 cannot hold a scale or a tensor's range.
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
        raise InputError(
            f"the scale of `{name}` (={scale:.3g}) is below {SMALLEST_NORMAL:.3g}, the least float16 holds in full, so "
            f"its values are too small for the Neural Engine's form: {_ADVICE}"
        )
    return Quantization(np.float32(np.float16(scale)), zero_point)


def _weight_scale(node: Conv) -> NDArray[np.float32]:
    """The weights' scale of each output channel, fit for float16; 1 where all weights are zero."""
    scale = np.where(node.weight.any(axis=(1, 2, 3)), node.weight_scale, np.float32(1))
    if scale.min() < SMALLEST_WEIGHT_SCALE:
        raise InputError(
            f"a weight scale of `{node.name}` (={scale.min():.3g}) is below {SMALLEST_WEIGHT_SCALE:.3g}, the least "
            f"that float16 holds well enough for the Neural Engine's form: {_ADVICE}"
        )
    _check_largest(f"a weight of `{node.name}`", scale.max() * QMAX)
    return scale.astype(np.float16).astype(np.float32)


def _check_largest(what: str, value: float | np.floating) -> None:
    if value > LARGEST:
        raise InputError(
            f"{what} can reach {value:.3g}, but the Neural Engine's form computes in float16, up to {LARGEST}: "
            f"{_ADVICE}"
        )


def _key(node: Conv, part: str) -> str:
    return f"{node.name}.{part}".replace(".", "_")
