"""ExecuTorch with int8 codes in and out, channels last: one delegate that quantises and transposes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from litehrnet_stage2.converters import to_executorch, xnnpack_lowering
from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.xnnpack_module import XnnpackModule
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.qdq_module import dequantize, quantize

BORDER = ARTIFACTS["executorch-codes"].border


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the int8 codes of each input in, those of each output out.

    All are channels last in memory (dim order 0, 2, 3, 1), as XNNPACK's own tensors are, but for those whose shape
    does not tell: see `Border.shape`.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
        LoweringError: XNNPACK has no exact form of an operator.
    """
    examples = [_example(function.tensors[name].shape) for name in function.inputs]
    program = xnnpack_lowering.lower(_AtTheBorder(function), *examples)
    coverage = to_executorch.coverage_of(program).check(expected_coverage(function), "executorch-codes")
    path.write_bytes(xnnpack_lowering.serialize(program, *examples))
    return coverage


class _AtTheBorder(nn.Module):
    """`XnnpackModule` with each tensor in the shape in which it crosses the border, changed inside of the delegate."""

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        self.codes = XnnpackModule(function)
        self.function = function

    def forward(self, *codes: Tensor) -> tuple[Tensor, ...]:
        """Reshape, evaluate, reshape."""
        tensors = self.function.tensors
        inputs = [
            _reshaped(x, tensors[name].shape, tensors[name].quantization)
            for name, x in zip(self.function.inputs, codes, strict=True)
        ]
        outputs = zip(self.codes(*inputs), self.function.outputs.values(), strict=True)
        return tuple(_reshaped(y, BORDER.shape(tensors[t].shape), tensors[t].quantization) for y, t in outputs)


def _reshaped(codes: Tensor, shape: tuple[int, ...], q: Quantization) -> Tensor:
    """The codes as they are, or reshaped between a dequantise and a quantise, as XNNPACK can."""
    return codes if tuple(codes.shape) == shape else quantize(dequantize(codes, q).reshape(shape), q)


def _example(shape: tuple[int, ...]) -> Tensor:
    crossing = torch.zeros(BORDER.shape(shape), dtype=torch.int8)
    return crossing.to(memory_format=torch.channels_last) if crossing.ndim == 4 else crossing


def expected_coverage(function: IntegerFunction) -> Coverage:
    """The same as with float32 in and out, but nothing at the border."""
    return dataclasses.replace(to_executorch.expected_coverage(function), boundary={})
