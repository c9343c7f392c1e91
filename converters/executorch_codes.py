"""ExecuTorch with int8 codes in and out, channels last: one delegate that quantises and transposes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from litehrnet_stage2.converters import executorch, xnnpack_lowering
from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.frozen import FrozenStage2
from litehrnet_stage2.reference.integer_function import IntegerFunction


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: int8 codes `[1, in_channels, height, width]` in, the int8 codes of `y1` and `y2` out.

    All three are channels last in memory (dim order 0, 2, 3, 1), as XNNPACK's own tensors are.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
    """
    shape = (1, function.config.in_channels, deployment.height, deployment.width)
    codes = torch.zeros(shape, dtype=torch.int8).to(memory_format=torch.channels_last)
    program = xnnpack_lowering.lower(FrozenStage2(function), codes)
    coverage = executorch.coverage_of(program).check(expected_coverage(function), "executorch-codes")
    path.write_bytes(xnnpack_lowering.serialize(program, function.config.in_channels))
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """As with float32 in and out, but nothing at the border."""
    return dataclasses.replace(executorch.expected_coverage(function), boundary={})
