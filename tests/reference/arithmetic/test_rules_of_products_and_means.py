"""The runtimes' rules of products and means, one value at a time; what bounds a scale; and how scales settle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.operators import Add, Check, Concat, Conv, Mean, Mul, SiLU, Table, add, mul, silu
from litehrnet_stage2.reference.quantization import Quantization
from litehrnet_stage2.reference.settle import FloatConv, FreezeError, settle, tied_groups
from tests.reference.arithmetic.scalar import (
    QUANTIZATIONS,
    SCALES,
    clamp,
    exact,
    f32,
    half_away,
    half_even,
    half_up,
    quantization,
)

SOME_CODES = (-128, -93, -77, -5, -1, 0, 1, 2, 3, 64, 106, 126, 127)
SMALL = st.builds(Quantization, SCALES.map(lambda s: np.float32(s / 16)), st.sampled_from([-128, -7, 0, 3, 127]))


# Of the pair -93, 106 the exact product lies on the other side of a tie than its float32.
@example(quantization(0.09838017076253891, 64), quantization(0.06101974472403526), quantization(0.8725252151489258))
@given(QUANTIZATIONS, QUANTIZATIONS, QUANTIZATIONS)
def test_products_under_each_rule(qa: Quantization, qb: Quantization, out: Quantization) -> None:
    m = Fraction(f32(Fraction(f32(exact(qa) * exact(qb))) / exact(out)))
    zero, shifted = out.zero_point, out.zero_point + 128
    found = dict(runtime_rules.products(qa, qb, out))
    assert len(found) == 4
    for a, b in itertools.product(SOME_CODES, repeat=2):
        product = (a - qa.zero_point) * (b - qb.zero_point)
        scaled = f32(m * product)
        due = {
            "XNNPACK x86 float32": half_even(scaled) + zero,
            "XNNPACK Arm fixed point": half_up(m * product) + zero,
            "MLAS float32, plain": half_even(f32(Fraction(scaled) + shifted)) - 128,
            "MLAS float32, fused": half_even(f32(float(m * product + shifted))) - 128,
        }
        for rule, value in due.items():
            assert found[rule][a + 128, b + 128] == clamp(value), (rule, a, b)


@pytest.mark.parametrize(
    "operands",
    [
        (quantization(0.09838017076253891, 64), quantization(0.06101974472403526), quantization(0.8725252151489258)),
        (quantization(0.05, -7), quantization(0.02, 31), quantization(0.11, 5)),
        (quantization(0.5, 3), quantization(1 / 256, -128), quantization(0.25, -100)),
    ],
)
def test_the_golden_product_is_that_of_the_float32_rule(operands: tuple[Quantization, ...]) -> None:
    rule = dict(runtime_rules.products(*operands))["XNNPACK x86 float32"]
    assert len(np.unique(rule)) > 100
    np.testing.assert_array_equal(mul.multiply(*runtime_rules.code_pairs(), *operands), rule)


# Of 1,114 codes of 127 the fused mean is another code than the plain one.
@example(1114, quantization(0.05638110265135765, 64), quantization(0.028302868828177452, -128), [127] * 9)
@given(st.integers(1, 2048), QUANTIZATIONS, QUANTIZATIONS, st.lists(st.integers(-128, 127), min_size=9, max_size=9))
def test_means_under_each_rule(cells: int, read: Quantization, out: Quantization, averages: list[int]) -> None:
    raw = np.array([average * cells for average in averages], np.int64)
    ratio = Fraction(f32(exact(read) / exact(out)))
    m = Fraction(f32(ratio / cells))
    zero = f32(Fraction(out.zero_point) - Fraction(f32(ratio * read.zero_point)))
    found = dict(runtime_rules.means(raw, cells, read, out))
    assert len(found) == 5
    for index, total in enumerate(map(int, raw)):
        scaled = f32(m * (total - cells * read.zero_point))
        plain = f32(Fraction(f32(m * total)) + Fraction(zero))
        due = {
            "MLAS float32": half_even(scaled) + out.zero_point,
            "MLAS float32, zero point added before": half_even(f32(Fraction(scaled) + out.zero_point + 128)) - 128,
            "XNNPACK float32, of the raw sum": half_even(plain),
            "XNNPACK float32, of the raw sum, fused": half_even(f32(float(m * total + Fraction(zero)))),
        }
        for rule, value in due.items():
            assert found[rule][index] == clamp(value), (rule, total)
        if abs(scaled) < 2**20:  # where adding a half is exact
            away = half_away(scaled) + out.zero_point
            assert found["NEON float32, half away from zero"][index] == clamp(away), total


def test_every_pair_of_codes_is_tried() -> None:
    a, b = runtime_rules.code_pairs()
    assert a.dtype == b.dtype == np.int8
    assert {(int(x), int(y)) for x, y in zip(a.ravel(), b.ravel(), strict=True)} == set(
        itertools.product(range(-128, 128), repeat=2)
    )
    assert (int(a[0, 5]), int(b[0, 5])) == (-128, -123)


def test_fused_and_swapped_additions_differ_from_the_plain_ones_where_float32_does() -> None:
    """Each of the fourteen rules against exact arithmetic rounded as that rule rounds."""
    qa, qb, out = quantization(0.0371, 11), quantization(0.0113, -77), quantization(0.0291, 5)
    left, right = (Fraction(f32(exact(q) / exact(out))) for q in (qa, qb))
    za, zb, zo = (q.zero_point + 128 for q in (qa, qb, out))
    constants = {
        "plain constant": f32(zo - Fraction(f32(Fraction(f32(left * za)) + Fraction(f32(right * zb))))),
        "fused constant a": f32(zo - Fraction(f32(left * za + Fraction(f32(right * zb))))),
        "fused constant b": f32(zo - Fraction(f32(right * zb + Fraction(f32(left * za))))),
    }
    found = dict(runtime_rules.additions(qa, qb, out))
    assert len(found) == 14
    for a, b in itertools.product(range(-128, 128, 5), repeat=2):
        ua, ub, ca, cb = a + 128, b + 128, a - qa.zero_point, b - qb.zero_point
        due = {}
        for name, constant in constants.items():
            c = Fraction(constant)
            sse = f32(Fraction(f32(c + Fraction(f32(left * ua)))) + Fraction(f32(right * ub)))
            due[f"MLAS x86 float32, SSE2, {name}"] = half_even(sse) - 128
            due[f"MLAS x86 float32, AVX2, {name}"] = half_even(f32(left * ua + Fraction(f32(right * ub + c)))) - 128
            swapped = f32(right * ub + Fraction(f32(left * ua + c)))
            due[f"MLAS x86 float32, AVX2 swapped, {name}"] = half_even(swapped) - 128
        for name, total in {
            "plain": Fraction(f32(left * ca)) + Fraction(f32(right * cb)),
            "fused a": left * ca + Fraction(f32(right * cb)),
            "fused b": right * cb + Fraction(f32(left * ca)),
        }.items():
            due[f"centred float32, {name}"] = half_even(f32(total)) + out.zero_point
        for rule, value in due.items():
            assert found[rule][a + 128, b + 128] == clamp(value), (rule, a, b)


# what bounds a scale


def test_the_least_scales_are_those_of_the_kernels() -> None:
    qa, qb, out = quantization(0.5), quantization(0.25), quantization(2.0)
    assert dict(Add(name="y", inputs=("a", "b")).least_scales([qa, qb], out)) == {
        "a": 2.0 / 1024,
        "b": 2.0 / 1024,
        "y": 0.5 / 256,
    }
    assert dict(Mul(name="y", inputs=("a", "b")).least_scales([qa, qb], out)) == {
        "y": 0.125 / 256,
        "a": 2.0 / 65536 / 0.25,
    }
    assert dict(SiLU(name="y", inputs=("x",)).least_scales([qa], out)) == {
        "y": 0.5 / 256 / 256,
        "x": 2.0 / 65536 * 256,
    }
    assert dict(_conv([[3]], [0.25]).least_scales([qa], out)) == {"y": 0.125 / 256}
    assert list(Concat(name="y", inputs=("a", "b")).least_scales([qa, qb], out)) == []


@given(SMALL, SMALL, SMALL)
@settings(max_examples=4)
def test_disagreements_count_the_codes_that_a_rule_gives_otherwise(
    qa: Quantization, qb: Quantization, out: Quantization
) -> None:
    pairs = runtime_rules.code_pairs()
    for rules, golden, counts in (
        (runtime_rules.additions, add.add, add.disagreements),
        (runtime_rules.products, mul.multiply, mul.disagreements),
    ):
        due = golden(*pairs, qa, qb, out)
        differing = {rule: int((codes != due).sum()) for rule, codes in rules(qa, qb, out)}
        assert counts(qa, qb, out) == {rule: count for rule, count in differing.items() if count}


@given(SMALL, SMALL)
@settings(max_examples=4)
def test_a_mean_is_tried_with_every_sum_that_there_can_be(read: Quantization, out: Quantization) -> None:
    node = Mean(name="y", inputs=("x",), cells=2)
    raw = np.arange(-256, 255)
    maps = np.stack([raw // 2, raw - raw // 2], axis=-1).astype(np.int8).reshape(-1, 1, 1, 2)
    due = node.evaluate([maps], [read], out).ravel()
    differing = {rule: int((codes != due).sum()) for rule, codes in runtime_rules.means(raw, 2, read, out)}
    assert node.disagreements(read, out) == {rule: count for rule, count in differing.items() if count}


def test_each_check_moves_its_own_scale_and_holds_when_the_rules_agree() -> None:
    good = (quantization(0.1), quantization(0.1), quantization(0.2001))
    halves = (quantization(0.5), quantization(0.5), quantization(1.0))
    (check,) = Add(name="y", inputs=("a", "b")).checks(list(halves[:2]), halves[2])
    assert (check.moves, check.holds()) == ("y", False)
    (check,) = Mul(name="y", inputs=("a", "b")).checks([quantization(0.5), quantization(1)], quantization(1))
    assert (check.moves, check.holds()) == ("y", False)
    (check,) = Mean(name="y", inputs=("x",), cells=2).checks([quantization(1)], quantization(1))
    assert (check.moves, check.holds()) == ("y", False)
    (check,) = Table(name="y", inputs=("x",), function="identity").checks([quantization(1)], quantization(2))
    assert (check.moves, check.holds()) == ("y", False)
    (check,) = Table(name="y", inputs=("x",), function="sigmoid").checks([good[0]], silu.SIGMOID)
    assert check.moves == "x"
    assert [c.moves for c in SiLU(name="y", inputs=("x",)).checks([good[0]], good[2])] == ["x", "y"]


def test_the_margin_of_products_is_the_least_distance_from_a_tie() -> None:
    inp, out = quantization(0.043, 12), quantization(0.021, -117)
    m = f32(Fraction(f32(exact(inp) / 256)) / exact(out))
    distances = []
    for code in range(-128, 128):
        sigmoid = min(255, half_even(256 / (1 + math.exp(-float(inp.scale) * (code - 12)))))
        value = (code - 12) * sigmoid * m
        if value < 127 + 117 + 0.25:
            distances.append(abs(value - math.floor(value) - 0.5))
    assert silu.product_margin(inp, out) == pytest.approx(min(distances), rel=1e-9)


def test_a_distance_counts_below_the_clamp_and_a_quarter_above() -> None:
    for value, distance in ((9.4, 0.1), (10.2, 0.3), (10.25, 0.5), (10.3, 0.5), (12.5, 0.5)):
        assert runtime_rules.distance_from_tie(np.array([value]), clamped_from=10) == pytest.approx(distance), value


def test_an_entry_within_2_to_the_minus_13_of_a_tie_fails() -> None:
    """Entry 1 of the table, and product 1 of SiLU, are put a little nearer than that to a tie, and a little farther."""
    table = Table(name="y", inputs=("x",), function="identity")
    for near, holds in ((0.9, False), (1.1, True)):
        # Codes 0..127 of the input: only code 1 gives less than the clamp, 0.5 of a code and the distance.
        out = Quantization(np.float32(1 / (0.5 + near * 2.0**-13)), 126)
        (check,) = table.checks([Quantization(np.float32(1), -128)], out)
        assert check.holds() == holds, near
    read = quantization(8)  # sigmoids of 0, 128 and 256 steps, which is 255
    assert silu.sigmoid_margin(read) > runtime_rules.SIGMOID_MARGIN
    for near, holds in ((0.9, False), (1.1, True)):
        out = Quantization(np.float32(8 * 255 / 256 / (0.5 + near * 2.0**-13)), 126)
        margins = [c.holds() for c in SiLU(name="y", inputs=("x",)).checks([read], out)]
        assert margins == [True, holds], near


# settling


def _conv(weight: list[list[float]], scales: list[float], bias: list[int] | None = None) -> Conv:
    codes = np.array(weight, np.int8)[:, :, None, None]
    return Conv(
        name="y",
        inputs=("x",),
        weight=codes,
        weight_scale=np.array(scales, np.float32),
        bias=np.array(bias or [0] * len(codes), np.int32),
    )


def _float_conv(weight: list[list[float]], scales: list[float], bias: list[float]) -> FloatConv:
    return FloatConv(
        conv=_conv([[1] * len(row) for row in weight], scales),
        weight=np.array(weight, np.float64)[:, :, None, None],
        weight_scale=np.array(scales, np.float32),
        bias=np.array(bias, np.float64),
    )


def test_a_float_convolution_takes_the_grid_that_its_weights_ask_for() -> None:
    made = _float_conv([[1.27, -0.5]], [0.01], [0.75]).quantized(quantization(0.5), quantization(1))
    assert made.weight.ravel().tolist() == [127, -50]
    assert made.bias.tolist() == [150]
    rounded = _float_conv([[1.27, -0.5]], [0.01], [0.7449]).quantized(quantization(0.5), quantization(1))
    assert rounded.bias.tolist() == [149]
    np.testing.assert_array_equal(made.weight_scale, np.float32([0.01]))


def test_a_bias_that_is_large_beside_the_weights_coarsens_the_grid() -> None:
    made = _float_conv([[1e-9]], [1e-11], [100.0]).quantized(quantization(0.5), quantization(1))
    assert made.weight_scale[0] == np.float32(100 / (0.5 * 2**22))
    assert (made.bias.tolist(), made.weight.ravel().tolist()) == ([2**22], [0])


def test_minute_weights_keep_a_multiplier_that_kernels_take() -> None:
    made = _float_conv([[0.0]], [1e-30], [0.0]).quantized(quantization(0.5), quantization(2))
    assert made.weight_scale[0] == np.float32(2 * 2.0**-32 * 1.01 / 0.5)


def test_scales_that_divide_the_runtimes_are_nudged_by_steps_of_one_part_in_half_a_million() -> None:
    node = Add(name="y", inputs=("a", "b"))
    tensors = {"a": quantization(0.5), "b": quantization(0.5), "y": quantization(1.0)}
    settled = settle([node], tensors)
    assert not add.disagreements(*(settled.quantization[name] for name in ("a", "b", "y")))
    assert settled.nodes == (node,)
    assert set(settled.nudges) == {"y"}
    steps = settled.nudges["y"] / 2.0**-19
    assert round(steps) != 0
    assert steps == pytest.approx(round(steps), abs=0.1)
    assert float(settled.quantization["y"].scale) == f32(1 + settled.nudges["y"])
    assert settled.raised == {}


@dataclass(frozen=True, kw_only=True)
class Picky(Add):
    """Holds at the last of the scales that it is to be tried with, and remembers those that it was."""

    holds_at: int
    tried: list[np.float32] = field(default_factory=list)

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        def holds() -> bool:
            self.tried.append(out.scale)
            return len(self.tried) == self.holds_at

        yield Check(self.name, holds, "never")


def _picky(holds_at: int, scale: float = 0.375) -> tuple[Picky, dict[str, Quantization]]:
    tensors = {"a": quantization(0.5), "b": quantization(0.5), "y": quantization(scale)}
    return Picky(name="y", inputs=("a", "b"), holds_at=holds_at), tensors


def test_a_scale_is_tried_a_step_up_a_step_down_two_up_two_down() -> None:
    node, tensors = _picky(6)
    settled = settle([node], tensors)
    factors = [1, 1 + 2**-19, 1 - 2**-19, 1 + 2**-18, 1 - 2**-18, 1 + 3 * 2**-19]
    assert [float(scale) for scale in node.tried] == [f32(0.375 * factor) for factor in factors]
    assert {type(scale) for scale in node.tried} == {np.float32}
    assert settled.nudges == {"y": pytest.approx(3 * 2**-19, rel=0.02)}


def test_a_scale_is_given_up_4096_steps_away() -> None:
    node, tensors = _picky(-1)
    with pytest.raises(FreezeError, match="never; calibrate on other data"):
        settle([node], tensors)
    assert max(map(float, node.tried)) == f32(0.375 * (1 + 4095 * 2**-19))
    assert min(map(float, node.tried)) == f32(0.375 * (1 - 4095 * 2**-19))
    assert len(node.tried) == 2 * 4096 - 1


def test_a_scale_at_the_bound_is_not_raised() -> None:
    node, tensors = _picky(1, scale=1.0)
    at_the_bound = settle([node], tensors | {"a": quantization(2**-10)})
    assert at_the_bound.raised == {}
    node, tensors = _picky(1, scale=1.0)
    below = settle([node], tensors | {"a": quantization(2**-11)})
    assert below.raised == {"a": pytest.approx(2.02)}
    assert type(below.quantization["a"].scale) is np.float32


def test_a_pinned_tensor_never_moves() -> None:
    tensors = {"a": quantization(0.5), "b": quantization(0.5), "y": quantization(1.0)}
    with pytest.raises(FreezeError, match="`y` is an input that cannot move"):
        settle([Add(name="y", inputs=("a", "b"))], tensors, pinned=["y"])


def test_a_minute_term_is_raised_a_hundredth_past_the_bound() -> None:
    tensors = {"a": quantization(1e-6), "b": quantization(0.731), "y": quantization(1.0)}
    settled = settle([Add(name="y", inputs=("a", "b"))], tensors)
    assert settled.raised == {"a": pytest.approx(1.01 / 1024 / 1e-6, rel=1e-3)}
    assert settled.quantization["a"].scale == pytest.approx(1.01 / 1024, rel=1e-3)


def test_tensors_between_which_codes_move_are_tied() -> None:
    nodes = [Concat(name="y", inputs=("a", "b")), Add(name="z", inputs=("y", "c"))]
    groups = tied_groups(nodes, ["a", "b", "c", "y", "z"])
    assert sorted(groups["a"]) == sorted(groups["y"]) == ["a", "b", "y"]
    assert (groups["c"], groups["z"]) == (["c"], ["z"])
