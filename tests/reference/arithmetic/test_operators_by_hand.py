"""Each rule of the integer function against values worked out by hand, and against slow, obvious evaluators."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.integer_function import IntegerFunction, QuantizedTensor
from litehrnet_stage2.reference.operators import Conv, Nearest, Resize, add, resize, silu
from litehrnet_stage2.reference.quantization import Quantization
from tests.reference.arithmetic.scalar import clamp, f32, quantization


def convolution(weight: Any, bias: Any = None, *, stride: int = 1, padding: int = 0, groups: int = 1) -> Conv:
    weight = np.asarray(weight, np.int8)
    if weight.ndim == 2:
        weight = weight[:, :, None, None]
    bias = np.zeros(len(weight)) if bias is None else bias
    return Conv(
        name="conv",
        inputs=("x",),
        weight=weight,
        weight_scale=np.ones(len(weight), np.float32),
        bias=np.asarray(bias, np.int32),
        stride=(stride, stride),
        padding=(padding,) * 4,
        groups=groups,
    )


def convolve(
    codes: Any, node: Conv, multiplier: float | list[float], *, zero: int = 0, out: int = 0
) -> NDArray[np.int8]:
    factors = np.broadcast_to(np.asarray(multiplier, np.float32), len(node.weight))
    acc = node.accumulate(np.asarray(codes, np.int8), zero)
    return node.requantize(acc, factors, quantization(1, out))


# input


def test_inputs_round_half_to_even_around_the_zero_point() -> None:
    x = np.array([0.25, 0.75, 1.25, -0.25, -0.75, -1.25, 0.26, 0.24], np.float32)
    assert quantization(0.5, 3).quantize(x).tolist() == [3, 5, 5, 3, 1, 1, 4, 3]


def test_inputs_saturate_at_both_ends() -> None:
    x = np.array([63.4, 63.5, 64.0, 1e30, -64.0, -64.25, -64.3, -1e30], np.float32)
    assert quantization(0.5).quantize(x).tolist() == [127, 127, 127, 127, -128, -128, -128, -128]
    assert quantization(0.5, 100).quantize(np.float32([14, -200])).tolist() == [127, -128]


def test_inputs_are_divided_in_float32() -> None:
    """1.75 by 0.7, both float32, is a little more than 2.5; in float32 it is 2.5, a tie that goes to 2."""
    assert Fraction(f32(1.75)) / Fraction(f32(0.7)) > Fraction(5, 2)
    assert quantization(0.7).quantize(np.array([1.75], np.float32)).tolist() == [2]


def test_inputs_are_divided_and_not_multiplied_by_a_reciprocal() -> None:
    """2.25 by 0.3 is just below 7.5, by multiplication just above."""
    x, scale = np.float32(2.25), np.float32(0.3)
    assert quantization(0.3).quantize(np.array([x])).tolist() == [7]
    assert np.rint(x * (np.float32(1) / scale)) == 8


def test_every_code_survives_being_a_float() -> None:
    codes = np.arange(-128, 128).astype(np.int8)
    for scale, zero_point in ((0.1, 0), (0.0173, -128), (3.3e-5, 127), (7e4, 11)):
        q = quantization(scale, zero_point)
        np.testing.assert_array_equal(q.quantize(q.dequantize(codes)), codes)


# convolution


def test_convolution_subtracts_the_zero_point_and_adds_the_bias() -> None:
    """Codes (7, -3) about zero point 5 are (2, -8): 2*3 + -8*10 + 4 = -70, and 2*-1 + -8*-2 - 20 = -6."""
    node = convolution([[3, 10], [-1, -2]], [4, -20])
    assert convolve([[[[7]], [[-3]]]], node, 1.0, zero=5).ravel().tolist() == [-70, -6]


def test_convolution_has_a_multiplier_for_each_channel_and_a_zero_point_out() -> None:
    node = convolution([[10], [10], [10]])
    assert convolve([[[[6]]]], node, [1.0, 0.5, -0.25], out=-9).ravel().tolist() == [51, 21, -24]


def test_convolution_rounds_half_to_even_before_it_adds_the_zero_point() -> None:
    """Sums 1, 3, 5, -1, -3, -5 halved are ties: 0, 2, 2, 0, -2, -2; then comes the odd zero point."""
    x = np.array([1, 3, 5, -1, -3, -5]).reshape(1, 1, 1, 6)
    assert convolve(x, convolution([[1]]), 0.5, out=1).ravel().tolist() == [1, 3, 3, 1, -1, -1]


def test_convolution_saturates_at_both_ends() -> None:
    x = np.array([127, -128, 100, -100]).reshape(1, 1, 1, 4)
    assert convolve(x, convolution([[127]]), 1.0).ravel().tolist() == [127, -128, 127, -128]
    assert convolve(x, convolution([[1]]), 1.0, out=28).ravel().tolist() == [127, -100, 127, -72]


def test_convolution_pads_with_the_code_of_zero() -> None:
    """Nine taps of weight 1 over a plane of codes zx+1 count the taps inside of it."""
    x = np.full((1, 1, 3, 4), -17 + 1)
    counts = [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]
    node = convolution(np.ones((1, 1, 3, 3)), padding=1)
    assert convolve(x, node, 1.0, zero=-17)[0, 0].tolist() == counts


def test_convolution_of_stride_two_starts_at_the_padding() -> None:
    """A weight that picks the middle tap takes every other code; one that picks the first, those before."""
    x = np.arange(16).reshape(1, 1, 4, 4)
    middle, first = np.zeros((2, 1, 1, 3, 3))
    middle[0, 0, 1, 1] = first[0, 0, 0, 0] = 1
    assert convolve(x, convolution(middle, stride=2, padding=1), 1.0)[0, 0].tolist() == [[0, 2], [8, 10]]
    assert convolve(x, convolution(first, stride=2, padding=1), 1.0)[0, 0].tolist() == [[0, 0], [0, 5]]


def test_depthwise_convolution_keeps_channels_apart() -> None:
    x = np.stack([np.full((2, 2), 3), np.full((2, 2), -5)])[None]
    node = convolution(np.stack([np.full((1, 3, 3), 2), np.full((1, 3, 3), 4)]), [1, 0], padding=1, groups=2)
    found = convolve(x, node, 1.0)
    assert found[0, 0].tolist() == [[25, 25], [25, 25]]  # 4 taps of 3*2, and the bias
    assert found[0, 1].tolist() == [[-80, -80], [-80, -80]]


def test_the_sum_becomes_a_float32_before_it_is_multiplied() -> None:
    """2^24 + 1 is no float32: it becomes 2^24, half of the multiplier's inverse, and the tie goes to 0."""
    node = convolution([[0]], [2**24 + 1])
    assert convolve([[[[0]]]], node, 2.0**-25).item() == 0
    assert convolve([[[[0]]]], convolution([[0]], [2**24 + 2]), 2.0**-25).item() == 1


def test_a_sum_past_int32_is_refused() -> None:
    with pytest.raises(ValueError, match="`conv` overflows its int32 accumulator"):
        convolve([[[[127]]]], convolution([[127]], [2**31 - 1]), 1.0)


@pytest.mark.parametrize("seed", range(48))
def test_convolution_equals_a_nested_loop_over_python_integers(seed: int) -> None:
    """Kernels, strides, dilations, paddings and groups that differ in every direction."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int, count: int) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.integers(low, high + 1, count))

    kernel, stride, dilation, padding = some(1, 3, 2), some(1, 3, 2), some(1, 2, 2), some(0, 2, 4)
    (groups, per_group, outputs), size = some(1, 3, 3), some(5, 9, 2)
    zero, out = (int(z) for z in rng.integers(-128, 128, 2))
    x = rng.integers(-128, 128, (2, groups * per_group, *size))
    weight = rng.integers(-127, 128, (groups * outputs, per_group, *kernel)).astype(np.int8)
    bias = rng.integers(-(2**16), 2**16, len(weight)).astype(np.int32)
    multiplier = rng.uniform(1e-4, 1e-2, len(weight)).astype(np.float32)
    node = Conv(
        name="conv",
        inputs=("x",),
        weight=weight,
        weight_scale=np.ones(len(weight), np.float32),
        bias=bias,
        stride=stride,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=dilation,  # type: ignore[arg-type]
        groups=groups,
    )
    found = convolve(x, node, list(multiplier), zero=zero, out=out)

    sizes = (
        (size[axis] + padding[axis] + padding[axis + 2] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in range(2)
    )
    due = np.zeros((2, len(weight), *sizes), np.int64)
    for n, o, row, column in np.ndindex(*due.shape):
        acc = int(bias[o])
        for i, dy, dx in np.ndindex(*weight.shape[1:]):
            y = row * stride[0] + dy * dilation[0] - padding[0]
            x_ = column * stride[1] + dx * dilation[1] - padding[1]
            if 0 <= y < size[0] and 0 <= x_ < size[1]:
                acc += (int(x[n, o // outputs * per_group + i, y, x_]) - zero) * int(weight[o, i, dy, dx])
        due[n, o, row, column] = clamp(round(f32(f32(acc) * float(multiplier[o]))) + out)
    np.testing.assert_array_equal(found, due)


# SiLU


def test_silu_by_hand() -> None:
    """Scale 1/20 in and 1/10 out, so the product's multiplier is 1/512.

    Code 20 is 1.0: sigmoid 0.73106 is 187 of 256, and 20*187/512 = 7.30.  Code 100 is 5.0: 254.29 of 256, and
    100*254/512 = 49.61.  Code -20 is -1.0: 68.85, and -20*69/512 = -2.70.  Code -128 is -6.4: 0.425, so 0.
    """
    table = silu.silu_table(quantization(1 / 20), quantization(1 / 10))
    assert [int(table[code + 128]) for code in (0, 20, 100, -20, -128)] == [0, 7, 50, -3, 0]


def test_silu_has_a_zero_point_on_both_sides() -> None:
    """With zero point 30 in, code 50 is 1.0; with zero point -100 out, what was 7 is -93."""
    table = silu.silu_table(quantization(1 / 20, 30), quantization(1 / 10, -100))
    assert [int(table[code + 128]) for code in (30, 50, 10)] == [-100, -93, -103]


def test_the_sigmoid_saturates_at_255_of_256() -> None:
    """Code 127 is 127.0, its sigmoid 256 of 256. With 255, 127*255/512 = 63.25; with 256, a tie that goes to 64."""
    assert int(silu.silu_table(quantization(1), quantization(2))[127 + 128]) == 63


def test_the_sigmoid_is_rounded_before_the_product() -> None:
    """Code 11 at 1/16 is 0.6875: 170.35 of 256. 11*170/32 = 58.44; with 170.35 it would be 58.56, and round to 59."""
    assert int(silu.silu_table(quantization(1 / 16), quantization(1 / 128))[11 + 128]) == 58


@pytest.mark.parametrize(("scale", "zero", "out", "zero_out"), [(0.043, 12, 0.021, -117), (0.11, -40, 0.09, 3)])
def test_silu_equals_exact_fractions(scale: float, zero: int, out: float, zero_out: int) -> None:
    inp, outer = quantization(scale, zero), quantization(out, zero_out)
    multiplier = Fraction(f32(f32(float(inp.scale) / 256) / float(outer.scale)))
    for code, found in zip(range(-128, 128), silu.silu_table(inp, outer), strict=True):
        sigmoid = min(255, round(256 / (1 + math.exp(-float(inp.scale) * (code - zero)))))
        assert found == clamp(round((code - zero) * sigmoid * multiplier) + zero_out)


# addition


def added(a: Any, b: Any, qa: Quantization, qb: Quantization, out: Quantization) -> list[int]:
    return [int(s) for s in add.add(np.asarray(a, np.int8), np.asarray(b, np.int8), qa, qb, out)]


def test_addition_by_hand() -> None:
    """(1/4)/(1/2) (a - 10) + (1/8)/(1/2) (b + 20) - 3, that is (a - 10)/2 + (b + 20)/4 - 3.

    (20, 0): 5 + 5 - 3 = 7.  (13, -20): 1.5 + 0, a tie that goes to 2.  (11, -20): 0.5, to 0.  (15, -20): 2.5, to 2.
    (9, -20): -0.5, to 0.  (7, -20): -1.5, to -2.  (-128, -128): -69 - 27 - 3 = -99.
    """
    found = added(
        [20, 13, 11, 15, 9, 7, -128],
        [0, -20, -20, -20, -20, -20, -128],
        quantization(1 / 4, 10),
        quantization(1 / 8, -20),
        quantization(1 / 2, -3),
    )
    assert found == [7, -1, -3, -1, -3, -5, -99]


def test_addition_rounds_once_and_not_each_term() -> None:
    unit = quantization(1)
    assert added([1], [1], unit, unit, quantization(2)) == [1]  # 1/2 + 1/2; rounded apart, 0 + 0
    assert added([1], [1], unit, unit, quantization(4)) == [0]  # 1/2, to even


def test_addition_saturates_at_both_ends() -> None:
    unit = quantization(1)
    assert added([127, -128], [127, -128], unit, unit, unit) == [127, -128]
    assert added([100, -100], [0, 0], unit, unit, quantization(1, 50)) == [127, -50]


# resize


def test_resize_by_hand() -> None:
    """Between codes 0, 16 above 32, 48: quarters and three quarters, exact; outside of the centres, clamped."""
    found = resize.resize(np.array([[[[0, 16], [32, 48]]]], np.int8))
    assert found[0, 0].tolist() == [[0, 4, 12, 16], [8, 12, 20, 24], [24, 28, 36, 40], [32, 36, 44, 48]]


def test_resize_rounds_half_up_on_both_sides_of_zero() -> None:
    """A far corner of 8 or -8 has weight 1/16 in the middle: +1/2 becomes 1, -1/2 becomes 0."""
    assert resize.resize(np.array([[[[0, 0], [0, 8]]]], np.int8))[0, 0, 1, 1] == 1
    assert resize.resize(np.array([[[[0, 0], [0, -8]]]], np.int8))[0, 0, 1, 1] == 0
    assert resize.resize(np.array([[[[0, 0], [0, 7]]]], np.int8))[0, 0, 1, 1] == 0
    assert resize.resize(np.array([[[[0, 0], [0, -9]]]], np.int8))[0, 0, 1, 1] == -1


def test_resize_edges_repeat_and_round_half_up() -> None:
    """On an edge only the two along it count: 3/4 and 1/4 of 0 and 2 are 1/2 and 3/2, which become 1 and 2."""
    assert resize.resize(np.array([[[[0, 2]]]], np.int8))[0, 0].tolist() == [[0, 1, 2, 2], [0, 1, 2, 2]]
    assert resize.resize(np.array([[[[0, -2]]]], np.int8))[0, 0].tolist() == [[0, 0, -1, -2], [0, 0, -1, -2]]
    assert resize.resize(np.full((1, 1, 1, 1), -77, np.int8))[0, 0].tolist() == [[-77, -77], [-77, -77]]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_resize_equals_half_pixel_bilinear_in_fractions(factor: int) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (3, 5)).astype(np.int8)
    found = resize.resize(x[None, None], factor)[0, 0]

    def at(row: Fraction, column: Fraction) -> Fraction:
        total = Fraction(0)
        for y in (math.floor(row), math.floor(row) + 1):
            for x_ in (math.floor(column), math.floor(column) + 1):
                inside = (min(max(y, 0), 2), min(max(x_, 0), 4))
                total += (1 - abs(row - y)) * (1 - abs(column - x_)) * int(x[inside])
        return total

    for row, column in np.ndindex(3 * factor, 5 * factor):
        y, x_ = (Fraction(2 * cell + 1, 2 * factor) - Fraction(1, 2) for cell in (row, column))
        assert found[row, column] == math.floor(at(y, x_) + Fraction(1, 2))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_tie_breaking_scale_and_offset_round_every_value_of_the_grid_half_up(factor: int) -> None:
    """Of the codes as ONNX Runtime has them, 0..255, and as Core ML has them, minus a zero point."""
    node = resize.Resize(name="up", inputs=("x",), factor=factor)
    raw = np.arange(256 * node.cells - node.cells + 1)
    due = (2 * raw + node.cells) // (2 * node.cells)
    values = raw.astype(np.float32) / np.float32(node.cells)
    np.testing.assert_array_equal(np.rint(values * node.tie_breaking_scale), due)
    signed = values - np.float32(128)
    np.testing.assert_array_equal(np.rint(signed + node.tie_breaking_offset), due - 128)


@pytest.mark.parametrize("factor", [0, 1, 3, 16, 2.0])
def test_a_factor_without_a_rule_is_refused(factor: object) -> None:
    with pytest.raises(ValueError, match=r"`factor` .* of `up` must be one of \[2, 4, 8\]"):
        resize.Resize(name="up", inputs=("x",), factor=factor)  # type: ignore[arg-type]


def test_a_batch_gives_what_each_of_its_images_gives_alone() -> None:
    q = quantization(1)
    function = IntegerFunction(
        name="f",
        inputs=("x",),
        outputs={"y": "r"},
        tensors={
            "x": QuantizedTensor(shape=(1, 1, 1, 2), quantization=q),
            "r": QuantizedTensor(shape=(1, 1, 2, 4), quantization=q),
        },
        nodes=(Nearest(name="r", inputs=("x",), factor=2),),
    )
    batch = np.arange(6, dtype=np.int8).reshape(3, 1, 1, 2)
    found = golden.evaluate(function, batch)["y"]
    assert found.shape == (3, 1, 2, 4)
    for image, alone in zip(batch, found, strict=True):
        assert alone.tolist() == [[np.repeat(image.ravel(), 2).tolist()] * 2]


@pytest.mark.parametrize(("factor", "cells", "bits"), [(2, 16, 12), (4, 64, 15), (8, 256, 17)])
def test_what_breaks_ties_is_less_than_the_grid_of_a_resize(factor: int, cells: int, bits: int) -> None:
    node = Resize(name="y", inputs=("x",), factor=factor)
    assert node.cells == cells
    assert (type(node.tie_breaking_scale), float(node.tie_breaking_scale)) == (np.float32, 1 + 2.0**-bits)
    assert (type(node.tie_breaking_offset), float(node.tie_breaking_offset)) == (np.float32, 1 / (4 * cells))
