"""Every operator against its rule, one value at a time, on drawn codes, scales and zero points."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litehrnet_stage2.reference.operators import Add, Concat, MaxPool, Mean, Mul, Nearest, Resize, SiLU, Table
from litehrnet_stage2.reference.operators.table import FUNCTIONS
from litehrnet_stage2.reference.quantization import PIXELS, QMAX, QMIN, Quantization, saturate
from tests.reference.arithmetic.scalar import (
    CODES,
    QUANTIZATIONS,
    SCALES,
    ZERO_POINTS,
    clamp,
    exact,
    f32,
    half_even,
    quantization,
    scale,
)

ONE = quantization(1)
ALL_CODES = np.arange(-128, 128).astype(np.int8)
MAPS = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def maps(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


# what a code means


@given(st.floats(-1e4, 1e4, width=32), SCALES, ZERO_POINTS)
def test_quantising_is_one_float32_division_rounded_half_to_even(x: float, s: np.float32, zero: int) -> None:
    steps = f32(Fraction(x) / Fraction(float(s)))
    assert int(Quantization(s, zero).quantize(np.float32([x]))[0]) == clamp(half_even(steps) + zero)


@given(CODES, QUANTIZATIONS)
def test_dequantising_is_one_float32_product_of_the_centred_code(code: int, q: Quantization) -> None:
    assert float(q.dequantize(np.int8([code]))[0]) == f32(exact(q) * (code - q.zero_point))


@given(st.integers(-(2**40), 2**40))
def test_saturation_clamps_to_int8(value: int) -> None:
    found = saturate(np.array([value], np.float64))
    assert (found.dtype, int(found[0])) == (np.int8, clamp(value))
    assert (QMIN, QMAX) == (-128, 127)


def test_a_pixel_is_the_code_that_is_128_less() -> None:
    pixels = np.arange(256)
    assert (type(PIXELS.scale), float(PIXELS.scale), PIXELS.zero_point) == (np.float32, f32(Fraction(1, 255)), -128)
    np.testing.assert_array_equal(PIXELS.quantize((pixels / 255).astype(np.float32)), pixels - 128)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_finite_and_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="must be finite and positive"):
        Quantization(np.float32(bad), 0)


@pytest.mark.parametrize("bad", [-129, 128, 1.0, True])
def test_a_zero_point_is_an_int8_code(bad: object) -> None:
    with pytest.raises(ValueError, match=r"must be an integer in \[-128, 127\]"):
        Quantization(np.float32(1), bad)  # type: ignore[arg-type]


def test_a_zero_point_may_be_either_end() -> None:
    assert [Quantization(np.float32(1), zero).zero_point for zero in (-128, 127)] == [-128, 127]


# rules


@given(CODES, CODES, QUANTIZATIONS, QUANTIZATIONS, QUANTIZATIONS)
def test_a_product_is_one_float32_multiply_of_the_integer_product(
    a: int, b: int, qa: Quantization, qb: Quantization, out: Quantization
) -> None:
    node = Mul(name="y", inputs=("a", "b"))
    multiplier = f32(Fraction(f32(exact(qa) * exact(qb))) / exact(out))
    due = clamp(half_even(f32(Fraction(multiplier) * (a - qa.zero_point) * (b - qb.zero_point))) + out.zero_point)
    codes = [np.full((1, 1, 1, 1), code, np.int8) for code in (a, b)]
    assert node.evaluate(codes, [qa, qb], out).item() == due
    assert float(node.multiplier(qa, qb, out)) == multiplier


@given(CODES, CODES, QUANTIZATIONS, QUANTIZATIONS, QUANTIZATIONS)
def test_a_sum_is_rounded_once_from_its_exact_value(
    a: int, b: int, qa: Quantization, qb: Quantization, out: Quantization
) -> None:
    total = exact(qa) / exact(out) * (a - qa.zero_point) + exact(qb) / exact(out) * (b - qb.zero_point)
    codes = [np.full((1, 1, 1, 1), code, np.int8) for code in (a, b)]
    found = Add(name="y", inputs=("a", "b")).evaluate(codes, [qa, qb], out).item()
    if abs(abs(total - math.floor(total)) - Fraction(1, 2)) > 1e-9:  # float64 decides the others
        assert found == clamp(half_even(total) + out.zero_point)


def test_a_mean_is_rounded_to_float32_before_it_is_to_a_code() -> None:
    """Its exact product lies below a tie, its float32 on it."""
    x = np.int8([62] * 9 + [64]).reshape(1, 1, 5, 2)
    read, out = quantization(0.14791791141033173, -3), quantization(0.21196149289608002, -128)
    assert Mean(name="y", inputs=("x",), cells=10).evaluate([x], [read], out).item() == -82
    assert half_even(exact(read) / exact(out) * (622 + 30) / 10) - 128 == -83


@given(MAPS, st.integers(0, 99), QUANTIZATIONS, QUANTIZATIONS)
def test_a_mean_is_one_float32_multiply_of_the_integer_sum(
    shape: tuple[int, ...], seed: int, read: Quantization, out: Quantization
) -> None:
    x, cells = maps(shape, seed), shape[2] * shape[3]
    node = Mean(name="y", inputs=("x",), cells=cells)
    multiplier = f32(Fraction(f32(exact(read) / exact(out))) / cells)
    found = node.evaluate([x], [read], out)
    assert found.shape == node.shape(shape) == (*shape[:2], 1, 1)
    for n, c in np.ndindex(*shape[:2]):
        total = sum(int(code) - read.zero_point for code in x[n, c].ravel())
        assert found[n, c, 0, 0] == clamp(half_even(f32(Fraction(multiplier) * total)) + out.zero_point)


@given(st.sampled_from(sorted(FUNCTIONS)), QUANTIZATIONS, QUANTIZATIONS)
def test_a_table_is_the_function_of_every_code(name: str, read: Quantization, out: Quantization) -> None:
    def f(x: float) -> float:
        if name == "hardswish":
            return x * min(max(x / 6 + 0.5, 0), 1)
        if name == "sigmoid":
            return 0.0 if x < -700 else 1 / (1 + math.exp(-x))
        return {"identity": x, "relu": max(x, 0), "relu6": min(max(x, 0), 6), "tanh": math.tanh(x)}[name]

    node = Table(name="y", inputs=("x",), function=name)
    found = node.evaluate([ALL_CODES.reshape(1, 1, 16, 16)], [read], out)
    for code, entry in zip(range(-128, 128), found.ravel(), strict=True):
        steps = f(scale(read) * (code - read.zero_point)) / scale(out)
        if abs(abs(steps - math.floor(steps)) - 0.5) > 1e-9:
            assert entry == clamp(half_even(steps) + out.zero_point), code


@given(QUANTIZATIONS, QUANTIZATIONS)
def test_silu_rounds_a_sigmoid_of_256_steps_and_then_the_product(read: Quantization, out: Quantization) -> None:
    found = SiLU(name="y", inputs=("x",)).evaluate([ALL_CODES], [read], out)
    multiplier = Fraction(f32(exact(read) / 256 / exact(out)))
    for code, entry in zip(range(-128, 128), found, strict=True):
        x = scale(read) * (code - read.zero_point)
        steps = 0.0 if x < -700 else 256 / (1 + math.exp(-x))
        if abs(abs(steps - math.floor(steps)) - 0.5) > 1e-9:
            product = (code - read.zero_point) * min(255, half_even(steps))
            assert entry == clamp(half_even(f32(multiplier * product)) + out.zero_point), code


@given(MAPS, st.integers(0, 99), st.integers(2, 4))
def test_nearest_repeats_each_code(shape: tuple[int, ...], seed: int, factor: int) -> None:
    x, node = maps(shape, seed), Nearest(name="y", inputs=("x",), factor=factor)
    found = node.evaluate([x], [ONE], ONE)
    assert found.shape == node.shape(shape)
    for n, c, row, column in np.ndindex(*found.shape):
        assert found[n, c, row, column] == x[n, c, row // factor, column // factor]


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(*[st.integers(0, 2)] * 4),
    st.tuples(st.integers(3, 6), st.integers(3, 6)),
)
def test_a_maximum_never_takes_a_cell_of_the_padding(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    padding = tuple(min(p, k - 1) for p, k in zip(padding, kernel * 2, strict=True))  # type: ignore[assignment]
    node = MaxPool(name="y", inputs=("x",), kernel=kernel, stride=stride, padding=padding)
    x = maps((1, 2, *size))
    found = node.evaluate([x], [ONE], ONE)
    assert found.shape == node.shape(x.shape)
    for n, c, row, column in np.ndindex(*found.shape):
        rows = range(row * stride[0] - padding[0], row * stride[0] - padding[0] + kernel[0])
        columns = range(column * stride[1] - padding[1], column * stride[1] - padding[1] + kernel[1])
        inside = [x[n, c, y, x_] for y in rows for x_ in columns if 0 <= y < size[0] and 0 <= x_ < size[1]]
        assert found[n, c, row, column] == max(inside, default=-128)


def test_a_concatenation_keeps_the_order_of_its_inputs() -> None:
    a, b = maps((2, 1, 3, 4)), maps((2, 2, 3, 4), 1)
    node = Concat(name="y", inputs=("a", "b"))
    found = node.evaluate([a, b], [ONE, ONE], ONE)
    assert found.shape == node.shape(a.shape, b.shape) == (2, 3, 3, 4)
    np.testing.assert_array_equal(found[:, :1], a)
    np.testing.assert_array_equal(found[:, 1:], b)


# shapes and refusals


def test_shapes_of_sums_products_and_tables() -> None:
    assert Add(name="y", inputs=("a", "b")).shape((1, 2, 3, 4), (1, 2, 3, 4)) == (1, 2, 3, 4)
    assert Mul(name="y", inputs=("a", "b")).shape((1, 2, 3, 4), (1, 2, 1, 1)) == (1, 2, 3, 4)
    assert SiLU(name="y", inputs=("x",)).shape((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert Table(name="y", inputs=("x",), function="relu").shape((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert Resize(name="y", inputs=("x",), factor=4).shape((1, 2, 3, 5)) == (1, 2, 12, 20)
    for node in (Add(name="y", inputs=("a", "b")), Mul(name="y", inputs=("a", "b"))):
        with pytest.raises(ValueError, match="`y`"):
            node.shape((1, 2, 3, 4), (1, 2, 3, 5))
    with pytest.raises(ValueError, match="different sizes"):
        Concat(name="y", inputs=("a", "b")).shape((1, 2, 3, 4), (1, 2, 3, 5))
    with pytest.raises(ValueError, match="different sizes"):
        Concat(name="y", inputs=("a", "b")).shape((1, 2, 3, 4), (2, 2, 3, 4))
    with pytest.raises(ValueError, match="12 cells, but reads 3x5"):
        Mean(name="y", inputs=("x",), cells=12).shape((1, 2, 3, 5))
    with pytest.raises(ValueError, match="larger than its input"):
        MaxPool(name="y", inputs=("x",), kernel=(4, 4), stride=(1, 1)).shape((1, 1, 3, 5))


@pytest.mark.parametrize("cells", [0, 2049, 1.0])
def test_a_mean_has_1_to_2048_cells(cells: object) -> None:
    assert [Mean(name="y", inputs=("x",), cells=n).cells for n in (1, 2048)] == [1, 2048]
    with pytest.raises(ValueError, match=r"must lie in \[1, 2048\]"):
        Mean(name="y", inputs=("x",), cells=cells)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [1, 65, 2.0])
def test_nearest_has_a_factor_of_2_to_64(factor: object) -> None:
    assert [Nearest(name="y", inputs=("x",), factor=n).factor for n in (2, 64)] == [2, 64]
    with pytest.raises(ValueError, match="whole number from 2 to 64"):
        Nearest(name="y", inputs=("x",), factor=factor)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {"kernel": (0, 2)},
        {"kernel": (2,)},
        {"kernel": [2, 2]},
        {"stride": (1, 0)},
        {"stride": (1.0, 1)},
        {"padding": (-1, 0, 0, 0)},
        {"padding": (2, 0, 0, 0)},
        {"padding": (0, 0, 0, 2)},
        {"padding": (0, 0, 0)},
    ],
)
def test_a_window_has_whole_positive_sizes_and_less_padding(values: dict[str, object]) -> None:
    MaxPool(name="y", inputs=("x",), kernel=(2, 2), stride=(1, 1), padding=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=f"`{next(iter(values))}`"):
        MaxPool(**{"name": "y", "inputs": ("x",), "kernel": (2, 2), "stride": (1, 1), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "inputs"), [("", ("x",)), ("y", ()), ("y", ("",)), ("y", (1,)), ("y", ("a", "b"))])
def test_a_node_reads_and_writes_by_name(name: str, inputs: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"by name|reads 2 tensors"):
        SiLU(name=name, inputs=inputs)
