"""ONNX with uint8 codes in and out, channels last: the bytes of a camera's interleaved RGB, or of another network."""

from __future__ import annotations

from pathlib import Path

from litehrnet_stage2.converters import to_onnx
from litehrnet_stage2.converters.coverage import Coverage, counted
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import IntegerFunction


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the codes of each input plus 128, in uint8, channels last, in; those of each output out.

    Raises:
        CoverageError: ONNX Runtime would leave an operator in float.
        LoweringError: ONNX Runtime has no exact form of an operator.
    """
    model = to_onnx.build_codes(function)
    coverage = to_onnx.coverage_of(model).check(expected_coverage(function), "onnx-codes")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """The same as with float32 in and out, but nothing at the border."""
    return to_onnx.classified(counted(function, to_onnx.OPERATORS))
