"""LiteRT with int8 codes in and out, channels last: one delegate that quantises and transposes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from litehrnet_stage2.converters import to_litert
from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import IntegerFunction


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the int8 codes of each input, channels last, in; those of each output out.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
        LoweringError: LiteRT has no exact form of an operator.
    """
    content = to_litert.build_codes(function)
    coverage = to_litert.coverage_of(content).check(expected_coverage(function), "litert-codes")
    path.write_bytes(content)
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """The same as with float32 in and out, but nothing at the border; a table in float keeps its own."""
    floats = to_litert.expected_coverage(function)
    tables = sum(floats.floating.values())
    return dataclasses.replace(floats, boundary={"QUANTIZE": tables, "DEQUANTIZE": tables})
