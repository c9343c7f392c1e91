"""ExecuTorch with int8 codes in and out, channels last: one delegate that quantises and transposes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from litehrnet_stage2.converters import executorch, xnnpack_lowering
from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.qdq_module import QDQModule


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the int8 codes of each input in, those of each output out, all of their tensors' shapes.

    All are channels last in memory (dim order 0, 2, 3, 1), as XNNPACK's own tensors are.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
        LoweringError: XNNPACK has no exact form of an operator.
    """
    codes = [torch.zeros(function.tensors[name].shape, dtype=torch.int8) for name in function.inputs]
    examples = [x.to(memory_format=torch.channels_last) for x in codes]
    program = xnnpack_lowering.lower(QDQModule(function), *examples)
    coverage = executorch.coverage_of(program).check(expected_coverage(function), "executorch-codes")
    path.write_bytes(xnnpack_lowering.serialize(program, *examples))
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """As with float32 in and out, but nothing at the border."""
    return dataclasses.replace(executorch.expected_coverage(function), boundary={})
