"""Which layers of a Core ML program count as int8, and which quantise steps count as left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.runtime.coreml.mil import MilProgram, MilTensor, Operation
from tests.int8_layers import int8_coverage

Step = tuple[str, str, str, dict[str, Any]]
CODES = np.zeros((8, 8, 1, 1), np.int8)


def program(*steps: Step) -> MilProgram:
    """A program of `(output, dtype, operator, arguments)`, one tensor `x` its input."""

    def tensor(name: str, dtype: str) -> MilTensor:
        return MilTensor(name=name, dtype=np.dtype(dtype), shape=(1, 8, 4, 4))

    operations = tuple(
        Operation(
            type=kind,
            arguments={name: (value,) for name, value in arguments.items()},
            outputs=(tensor(output, dtype),),
        )
        for output, dtype, kind, arguments in steps
    )
    return MilProgram(
        inputs=(tensor("x", "float32"),),
        outputs=operations[-1].outputs,
        constants={"codes": CODES},
        operations=operations,
    )


def pair(output: str, source: str) -> tuple[Step, Step]:
    return (
        (f"{output}_codes", "int8", "quantize", {"input": source}),
        (output, "float32", "dequantize", {"input": f"{output}_codes"}),
    )


WEIGHTS: dict[str, tuple[Step, ...]] = {
    "iOS17": (("w", "float32", "constexpr_affine_dequantize", {"quantized_data": CODES}),),
    "iOS18": (("w", "float32", "constexpr_blockwise_shift_scale", {"data": CODES}),),
    "constant": (("w", "float32", "dequantize", {"input": "codes"}),),
}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_layer_of_quantised_input_and_weight_is_int8(layer: str, weight: str) -> None:
    coverage = int8_coverage(
        program(*pair("a", "x"), *WEIGHTS[weight], ("y", "float32", layer, {"x": "a", "weight": "w"}))
    )
    (only,) = coverage.layers
    assert (only.type, only.name, only.int8) == (layer, "y", True)
    assert (coverage.int8_layers, coverage.leftover_pairs) == (1, ())


@pytest.mark.parametrize(
    ("arguments", "int8_input", "int8_weight"),
    [
        ({"x": "x", "weight": "w"}, False, True),
        ({"x": "a", "weight": CODES.astype(np.float32)}, True, False),
        ({"x": "silu", "weight": "codes"}, False, False),
    ],
)
def test_layer_with_one_float_side_is_not_int8(arguments: dict[str, Any], int8_input: bool, int8_weight: bool) -> None:
    coverage = int8_coverage(
        program(
            *pair("a", "x"),
            ("silu", "float32", "silu", {"x": "a"}),
            *WEIGHTS["iOS17"],
            ("y", "float32", "conv", arguments),
        )
    )
    (only,) = coverage.layers
    assert (only.int8_input, only.int8_weight, only.int8) == (int8_input, int8_weight, False)
    assert coverage.int8_layers == 0


def test_weight_of_another_width_is_not_int8() -> None:
    wide = ("w", "float32", "constexpr_blockwise_shift_scale", {"data": CODES.astype(np.float16)})
    coverage = int8_coverage(program(*pair("a", "x"), wide, ("y", "float32", "conv", {"x": "a", "weight": "w"})))
    assert not coverage.layers[0].int8_weight


def test_pair_that_no_layer_reads_is_left_over() -> None:
    coverage = int8_coverage(
        program(
            *pair("a", "x"),
            *WEIGHTS["iOS17"],
            ("y", "float32", "conv", {"x": "a", "weight": "w"}),
            *pair("inside", "y"),
            ("s", "float32", "sigmoid", {"x": "inside"}),
            *pair("shared", "s"),
            ("sum", "float32", "add", {"x": "shared", "y": "a"}),
            ("z", "float32", "conv", {"x": "shared", "weight": "w"}),
            *pair("last", "z"),
        )
    )
    assert coverage.leftover_pairs == ("inside", "last")
    assert coverage.int8_layers == 2


def test_codes_that_enter_or_leave_the_program_are_no_pair() -> None:
    coverage = int8_coverage(
        program(
            ("a", "float32", "dequantize", {"input": "codes"}),
            ("y", "float32", "silu", {"x": "a"}),
            ("y_codes", "int8", "quantize", {"input": "y"}),
        )
    )
    assert coverage.leftover_pairs == ()
