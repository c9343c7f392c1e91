"""The exact `.mlpackage`, evaluated without Apple hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.converters import to_coreml
from litehrnet_stage2.converters.coverage import CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.operators import Conv
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate

SMALL = Deployment()


def mismatches(folder: Path, images: slice) -> dict[str, int]:
    """Codes of the evaluated program that differ from the bundle's golden ones."""
    bundle = Bundle.open(folder)
    golden, program = bundle.golden(), MilProgram.load(folder / "stage2.mlpackage")
    counts = {"y1": 0, "y2": 0}
    for x, *due in zip(golden.x[images], golden.outputs["y1"][images], golden.outputs["y2"][images], strict=True):
        outputs = evaluate(program, {"features": x[None]})
        for spec, wanted in zip(bundle.manifest.outputs, due, strict=True):
            q = Quantization(np.float32(spec.scale), spec.zero_point)
            found = outputs[spec.name][0]
            np.testing.assert_array_equal(found, q.dequantize(q.quantize(found)))
            counts[spec.name] += int(np.count_nonzero(q.quantize(found) != wanted))
    return counts


def test_the_program_gives_the_golden_codes(bundle_folder: Path) -> None:
    """A photograph, the checkerboard and noise."""
    for images in (slice(0, 1), slice(-2, None)):
        assert mismatches(bundle_folder, images) == {"y1": 0, "y2": 0}


def test_a_small_program_gives_the_golden_codes_on_every_input(small_bundle: Path) -> None:
    assert mismatches(small_bundle, slice(None)) == {"y1": 0, "y2": 0}


def test_coverage_counts_every_operator_on_whole_numbers(bundle_folder: Path) -> None:
    coverage = Bundle.open(bundle_folder).manifest.coverage["coreml"]
    assert coverage.int8 == {"conv": 20, "sigmoid": 16, "mul": 80, "add": 7, "upsample_bilinear": 1}
    assert coverage.floating == {}


def test_every_convolution_has_int8_weights_of_scale_one_so_that_sums_are_whole(bundle_folder: Path) -> None:
    program = MilProgram.load(bundle_folder / "stage2.mlpackage")
    weights = [op for op in program.operations if op.type == "constexpr_affine_dequantize"]
    made = {tensor.name for op in weights for tensor in op.outputs}
    convs = [op for op in program.operations if op.type == "conv"]
    assert len(convs) == 20
    assert {op.argument("weight") for op in convs} == made
    for op in weights:
        assert op.argument("scale") == 1
        assert op.argument("quantized_data").dtype == np.int8
    for op in convs:
        bias = op.argument("bias")
        bias = program.constants[bias] if isinstance(bias, str) else bias
        np.testing.assert_array_equal(bias, np.rint(bias))


def test_an_operator_too_many_fails_the_conversion_and_writes_nothing(
    small_function: IntegerFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = to_coreml.LOWER[Conv]
    monkeypatch.setitem(
        to_coreml.LOWER, Conv, lambda body, node: to_coreml.mb.add(x=original(body, node), y=np.float32(1))
    )
    with pytest.raises(CoverageError, match=r"coreml: .* add under `int8`, where the contract has"):
        to_coreml.convert(small_function, tmp_path / "stage2.mlpackage", SMALL)
    assert not (tmp_path / "stage2.mlpackage").exists()


def test_float_weights_fail_the_conversion(
    small_function: IntegerFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(**arguments: Any) -> Any:
        return to_coreml.mb.const(val=arguments["quantized_data"].astype(np.float32))

    monkeypatch.setattr(to_coreml.mb, "constexpr_affine_dequantize", constant)
    with pytest.raises(CoverageError, match="coreml: 0 conv under `int8`, where the contract has 14"):
        to_coreml.convert(small_function, tmp_path / "stage2.mlpackage", SMALL)
