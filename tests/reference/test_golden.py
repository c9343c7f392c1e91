"""The whole integer function, evaluated: its codes, their hash, and that each rule is needed for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.converters.write_bundle import stress_inputs
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.operators import Conv, add, resize, silu
from litehrnet_stage2.reference.quantization import Quantization, saturate


def test_codes_are_hashed_as_y1_then_y2() -> None:
    y1, y2 = np.array([1, -1], np.int8), np.array([[2]], np.int8)
    assert golden.codes_sha256(y1, y2) == hashlib.sha256(b"\x01\xff\x02").hexdigest()


def test_a_batch_is_evaluated_image_by_image(small_function: IntegerFunction) -> None:
    codes = np.random.default_rng(0).integers(-128, 128, (3, 4, 16, 24)).astype(np.int8)
    whole = golden.evaluate(small_function, codes)
    assert {name: y.shape for name, y in whole.items()} == {"y1": (3, 4, 16, 24), "y2": (3, 8, 8, 12)}
    for index in range(3):
        for name, y in golden.evaluate(small_function, codes[index : index + 1]).items():
            np.testing.assert_array_equal(whole[name][index], y[0])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 4, 16, 24), np.float32), "codes must be int8, but are float32"),
        (np.zeros((1, 5, 16, 24), np.int8), r"`features` must have shape \[N,4,16,24\], but have \[1, 5, 16, 24\]"),
        (np.zeros((1, 4, 15, 24), np.int8), r"but have \[1, 4, 15, 24\]"),
        (np.zeros((0, 4, 16, 24), np.int8), r"N >= 1|but have \[0, 4, 16, 24\]"),
    ],
)
def test_codes_of_a_wrong_shape_or_dtype_are_refused(
    codes: NDArray[Any], message: str, small_function: IntegerFunction
) -> None:
    with pytest.raises(ValueError, match=message):
        golden.evaluate(small_function, codes)


Change = Callable[[pytest.MonkeyPatch], None]


def _without_bias(patch: pytest.MonkeyPatch) -> None:
    exact = Conv.accumulate
    patch.setattr(Conv, "accumulate", lambda node, codes, zero: exact(node, codes, zero) - node.bias[:, None, None])


def _truncating_convolutions(patch: pytest.MonkeyPatch) -> None:
    def requantize(node: Conv, acc: NDArray[np.float64], m: NDArray[np.float32], out: Quantization) -> NDArray[np.int8]:
        return saturate(np.trunc(acc * m[:, None, None]) + out.zero_point)

    patch.setattr(Conv, "requantize", requantize)


def _unrounded_sigmoid(patch: pytest.MonkeyPatch) -> None:
    def table(inp: Quantization, out: Quantization) -> NDArray[np.int8]:
        x = inp.dequantize(np.arange(-128, 128).astype(np.int8))
        return out.quantize(x / (1 + np.exp(-x)))

    patch.setattr(silu, "silu_table", table)


def _adding_rounded_terms(patch: pytest.MonkeyPatch) -> None:
    def sums(a: Any, b: Any, qa: Quantization, qb: Quantization, out: Quantization) -> NDArray[np.int8]:
        left, right = (out.quantize(q.dequantize(x)) for x, q in ((a, qa), (b, qb)))
        return saturate(left.astype(float) + right - out.zero_point)

    patch.setattr(add, "add", sums)


def _resizing_half_to_even(patch: pytest.MonkeyPatch) -> None:
    def even(codes: NDArray[np.int8], factor: int) -> NDArray[np.int8]:
        x = codes.astype(np.int32)
        for axis in (2, 3):
            x = resize.weighted_sums(x, axis, factor)
        return saturate(np.rint(x / 16))

    patch.setattr(resize, "resize", even)


@pytest.mark.parametrize(
    "change",
    [
        _without_bias,
        _truncating_convolutions,
        _unrounded_sigmoid,
        _adding_rounded_terms,
        _resizing_half_to_even,
    ],
)
def test_changing_one_rule_changes_the_codes(
    change: Change, small_function: IntegerFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = stress_inputs(small_function.input_quantization, (4, 16, 24))
    due = golden.evaluate(small_function, codes)
    change(monkeypatch)
    found = golden.evaluate(small_function, codes)
    assert any((found[name] != due[name]).any() for name in due)


def of_size(function: IntegerFunction, height: int, width: int) -> IntegerFunction:
    """The same nodes for features of another size."""
    shapes = {name: (*function.tensors[name].shape[:2], height, width) for name in function.inputs}
    return assemble(function.name, shapes, dict(function.outputs), function.nodes, function.quantization)


def test_changing_the_padding_code_changes_only_what_the_edges_reach(small_function: IntegerFunction) -> None:
    """Evaluate a wide image, and its middle alone: they agree but where padding came near."""
    codes = np.random.default_rng(3).integers(-128, 128, (1, 4, 64, 64)).astype(np.int8)
    whole = golden.evaluate(of_size(small_function, 64, 64), codes)
    part = golden.evaluate(of_size(small_function, 64, 32), codes[:, :, :, 16:48])
    np.testing.assert_array_equal(whole["y1"][..., 28:36], part["y1"][..., 12:20])
    assert (whole["y1"][..., 16] != part["y1"][..., 0]).any()
