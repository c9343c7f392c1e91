"""Parity: what is counted where codes differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.reference.golden import codes_sha256, evaluate
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime import Bundle, check_parity, expected, open_session
from litehrnet_stage2.runtime.parity import compare


def test_equal_codes_have_no_mismatch_and_no_noise() -> None:
    codes = np.arange(-128, 128).astype(np.int8)
    result = compare(codes, codes.copy(), zero_point=3)
    assert dataclasses.asdict(result) == {
        "compared": 256,
        "mismatches": 0,
        "max_lsb": 0,
        "histogram": {0: 256},
        "sqnr_db": None,
    }


def test_every_difference_is_counted_by_its_steps_also_across_the_whole_range() -> None:
    wanted = np.array([0, 10, 10, 10, -128, 127], np.int8)
    found = np.array([0, 11, 11, 8, 127, -128], np.int8)
    result = compare(found, wanted, zero_point=0)
    assert (result.compared, result.mismatches, result.max_lsb) == (6, 5, 255)
    assert result.histogram == {-255: 1, -2: 1, 0: 1, 1: 2, 255: 1}
    assert compare(found[3:4], wanted[3:4], zero_point=0).max_lsb == 2


def test_sqnr_is_of_the_values_about_the_zero_point() -> None:
    """Signal 100 steps a code, noise one step on one code in four: 10 log10(4 * 100^2 / 1) dB."""
    wanted = np.full(4, 90, np.int8)
    found = wanted + np.array([0, 0, 1, 0], np.int8)
    assert compare(found, wanted, zero_point=-10).sqnr_db == pytest.approx(10 * np.log10(40_000))


def test_noise_on_a_signal_that_is_zero_has_no_ratio() -> None:
    wanted = np.full(4, -10, np.int8)
    assert compare(wanted + np.int8(1), wanted, zero_point=-10).sqnr_db is None


def test_altered_golden_codes_fail_with_what_was_altered(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    golden = bundle.golden()
    y2 = golden.outputs["y2"].copy()
    y2[1, 2, 3, 4:7] ^= np.int8(1)
    altered = dataclasses.replace(golden, outputs={**golden.outputs, "y2": y2})
    result = check_parity(open_session(bundle, "onnxruntime"), altered)
    assert not result.passed
    assert result.images == len(golden.x)
    assert (result.outputs["y1"].mismatches, result.outputs["y2"].mismatches) == (0, 3)
    assert result.outputs["y2"].max_lsb == 1
    assert result.codes_sha256 == bundle.manifest.golden_sha256
    assert result.golden_sha256 == codes_sha256(golden.outputs["y1"], y2) != result.codes_sha256


def test_expected_codes_are_those_of_the_snapped_features(
    small_function: IntegerFunction, small_features: NDArray[np.float32]
) -> None:
    q = small_function.input_quantization
    due = expected(small_function, small_features)
    np.testing.assert_array_equal(due.x, q.dequantize(q.quantize(small_features)))
    assert np.abs(due.x - small_features).max() <= q.scale * 0.5001
    np.testing.assert_array_equal(due.outputs["y1"], evaluate(small_function, q.quantize(due.x))["y1"])


@pytest.mark.parametrize("runtime", ["golden", "onnxruntime", "executorch"])
def test_flips_are_reported_apart_and_fail_nothing(
    runtime: str, small_bundle: Path, small_features: NDArray[np.float32]
) -> None:
    bundle = Bundle.open(small_bundle)
    due = expected(bundle.function(), small_features)
    result = check_parity(open_session(bundle, runtime), due, unsnapped=[small_features])
    assert result.passed
    assert result.flips is not None
    assert result.flips.inputs == small_features.size
    assert 0 < result.flips.off_grid <= small_features.size
    assert result.flips.compared == due.outputs["y1"].size + due.outputs["y2"].size
    if runtime == "golden":
        assert result.flips.outputs == 0


def test_features_a_hair_off_a_tie_flip_and_are_counted(small_bundle: Path) -> None:
    """Features on the other side of a tie than their snapped ones: every input is another code."""
    bundle = Bundle.open(small_bundle)
    due = expected(bundle.function(), np.zeros((1, 4, 16, 24), np.float32))
    moved = due.x + np.float32(0.6 * bundle.manifest.inputs[0].scale)
    result = check_parity(open_session(bundle, "golden"), due, unsnapped=[moved])
    assert result.passed
    assert result.flips is not None
    assert result.flips.off_grid == moved.size
    assert result.flips.outputs > 0


def test_features_on_the_grid_have_no_flips_to_report(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    golden = bundle.golden()
    result = check_parity(open_session(bundle, "golden"), golden, unsnapped=golden.real)
    assert result.flips is None
