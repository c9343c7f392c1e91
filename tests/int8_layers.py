"""Which layers of a Core ML program have int8 on both sides, and which quantise steps serve no layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.runtime.coreml.mil import MilProgram, Operation

_LAYERS = ("conv", "linear")
# Each way to write an 8-bit tensor, and the parameter that holds its codes.
_CODES = {
    "dequantize": "input",
    "constexpr_affine_dequantize": "quantized_data",
    "constexpr_blockwise_shift_scale": "data",
}


@dataclass(frozen=True, kw_only=True)
class LayerPrecision:
    """What a convolution or linear layer works on. `name` is its output's."""

    type: str
    name: str
    int8_input: bool
    int8_weight: bool

    @property
    def int8(self) -> bool:
        """Whether the input and the weight both are 8-bit codes with a scale."""
        return self.int8_input and self.int8_weight


@dataclass(frozen=True, kw_only=True)
class Int8Coverage:
    """How far a program is in int8.

    Attributes:
        layers: its convolutions and linear layers, in order.
        leftover_pairs: the outputs of the `dequantize`s that undo a `quantize` and that no layer reads: they
            round values and cost time, but no layer runs in int8 for it.
    """

    layers: tuple[LayerPrecision, ...]
    leftover_pairs: tuple[str, ...]

    @property
    def int8_layers(self) -> int:
        """How many layers have int8 on both sides."""
        return sum(layer.int8 for layer in self.layers)


def int8_coverage(program: MilProgram) -> Int8Coverage:
    """Look at what feeds each layer, and at what each `dequantize` feeds."""
    producers = {tensor.name: operation for operation in program.operations for tensor in operation.outputs}
    layers = [operation for operation in program.operations if operation.type in _LAYERS]
    read_by_layers = {name for layer in layers for name in layer.reads()}

    def feeding(operation: Operation, parameter: str) -> Operation | None:
        value = operation.argument(parameter)
        return producers.get(value) if isinstance(value, str) else None

    def is_8_bit(operation: Operation | None) -> bool:
        if operation is None or operation.type not in _CODES:
            return False
        codes = operation.argument(_CODES[operation.type])
        return _dtype(codes, program, producers) in (np.int8, np.uint8)

    def undoes_quantize(operation: Operation) -> bool:
        source = feeding(operation, "input") if operation.type == "dequantize" else None
        return source is not None and source.type == "quantize"

    return Int8Coverage(
        layers=tuple(
            LayerPrecision(
                type=layer.type,
                name=layer.outputs[0].name,
                int8_input=is_8_bit(feeding(layer, "x")),
                int8_weight=is_8_bit(feeding(layer, "weight")),
            )
            for layer in layers
        ),
        leftover_pairs=tuple(
            operation.outputs[0].name
            for operation in program.operations
            if undoes_quantize(operation) and operation.outputs[0].name not in read_by_layers
        ),
    )


def _dtype(
    value: str | NDArray[np.generic], program: MilProgram, producers: dict[str, Operation]
) -> np.dtype[np.generic] | None:
    if not isinstance(value, str):
        return value.dtype
    if value in program.constants:
        return program.constants[value].dtype
    tensors = producers[value].outputs if value in producers else program.inputs
    return next(tensor.dtype for tensor in tensors if tensor.name == value)
