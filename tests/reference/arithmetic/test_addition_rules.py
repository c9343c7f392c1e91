"""The runtimes' rules of addition against scalar ones in Python integers; the margins of SiLU."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.operators import add, silu
from litehrnet_stage2.reference.quantization import saturate
from tests.reference.arithmetic.scalar import (
    OPERANDS,
    Operands,
    clamp,
    f32,
    quantization,
    random_operands,
)


def modelled(operands: Operands) -> dict[str, NDArray[np.int8]]:
    golden = add.add(*runtime_rules.code_pairs(), *operands)
    return {"golden": golden, **dict(runtime_rules.additions(*operands))}


def ratios(operands: Operands) -> tuple[float, float]:
    a, b, out = (float(q.scale) for q in operands)
    return f32(a / out), f32(b / out)


def fixed_point(operands: Operands, bits: int) -> tuple[int, int, int]:
    """Multipliers of so many bits, and their shift, taken from the bits of the larger ratio."""
    left, right = ratios(operands)
    exponent = (struct.unpack("I", struct.pack("f", max(left, right)))[0] >> 23) - 127
    shift = bits - 1 - exponent
    return round(left * 2**shift), round(right * 2**shift), shift


def xnnpack(operands: Operands) -> Callable[[int, int], int]:
    """The bias holds the zero points and the rounding; an arithmetic shift floors."""
    left, right, shift = fixed_point(operands, 21)
    qa, qb, out = operands
    bias = (1 << (shift - 1)) - left * qa.zero_point - right * qb.zero_point
    assert 2**20 <= max(left, right) <= 2**21
    return lambda a, b: clamp(((bias + a * left + b * right) >> shift) + out.zero_point)


def mlas_arm(operands: Operands) -> Callable[[int, int], int]:
    """On magnitudes, half up: that is half away from zero."""
    left, right, shift = fixed_point(operands, 22)
    qa, qb, out = operands

    def add(a: int, b: int) -> int:
        total = (a - qa.zero_point) * left + (b - qb.zero_point) * right
        magnitude = (abs(total) + (1 << (shift - 1))) >> shift
        return clamp((magnitude if total >= 0 else -magnitude) + out.zero_point)

    return add


def mlas_sse2(operands: Operands) -> Callable[[int, int], int]:
    """In float32 on uint8 codes, every operation rounded, the zero points gathered in one constant."""
    left, right = ratios(operands)
    za, zb, zo = (q.zero_point + 128 for q in operands)
    constant = f32(zo - f32(f32(left * za) + f32(right * zb)))

    def add(a: int, b: int) -> int:
        total = f32(f32(constant + f32((a + 128) * left)) + f32((b + 128) * right))
        return clamp(round(total) - 128)

    return add


def centred(operands: Operands) -> Callable[[int, int], int]:
    left, right = ratios(operands)
    qa, qb, out = operands
    return lambda a, b: clamp(
        round(f32(f32((a - qa.zero_point) * left) + f32((b - qb.zero_point) * right))) + out.zero_point
    )


def exact(operands: Operands) -> Callable[[int, int], int]:
    qa, qb, out = operands
    scale = Fraction(float(out.scale))
    left, right = (Fraction(float(q.scale)) / scale for q in (qa, qb))
    return lambda a, b: clamp(round((a - qa.zero_point) * left + (b - qb.zero_point) * right) + out.zero_point)


@pytest.mark.parametrize("operands", OPERANDS)
@pytest.mark.parametrize(
    ("rule", "scalar"),
    [
        ("golden", exact),
        ("XNNPACK fixed point", xnnpack),
        ("MLAS Arm fixed point", mlas_arm),
        ("MLAS x86 float32, SSE2, plain constant", mlas_sse2),
        ("centred float32, plain", centred),
    ],
)
def test_a_rule_equals_its_scalar_form_on_all_code_pairs(
    rule: str, scalar: Callable[[Operands], Callable[[int, int], int]], operands: Operands
) -> None:
    sums, add = modelled(operands)[rule], scalar(operands)
    due = [add(a, b) for a, b in itertools.product(range(-128, 128), repeat=2)]
    np.testing.assert_array_equal(sums.ravel(), due)


def test_exact_ties_are_found_to_divide_the_runtimes() -> None:
    """1/2 becomes 1 when rounded half up, 0 when rounded to even; -1/2 becomes -1 when rounded away from zero."""
    sums = modelled((quantization(0.5), quantization(0.5), quantization(1.0)))
    assert sums["golden"][1 + 128, 128] == 0
    assert sums["XNNPACK fixed point"][1 + 128, 128] == 1
    assert sums["MLAS Arm fixed point"][1 + 128, 128] == 1
    assert sums["XNNPACK fixed point"][-1 + 128, 128] == 0
    assert sums["MLAS Arm fixed point"][-1 + 128, 128] == -1
    counts = add.disagreements(quantization(0.5), quantization(0.5), quantization(1.0))
    assert counts["XNNPACK fixed point"] > 10_000
    assert counts["MLAS Arm fixed point"] > 10_000
    assert not any(rule.startswith("MLAS x86") for rule in counts)


def test_some_random_scales_divide_the_runtimes_on_a_few_pairs() -> None:
    """Otherwise neither checking all 65,536 nor nudging would be worth it."""
    counts = [sum(add.disagreements(*random_operands(seed)).values()) for seed in range(12)]
    assert any(0 < count < 1000 for count in counts)


def test_a_fused_multiply_add_is_rounded_once() -> None:
    """Of (2^12 + 1)^2 - 2^24 = 2^13 + 1 a float32 product loses the 1."""
    x = np.float32(2**12 + 1)
    assert runtime_rules.fused_multiply_add(x, x, np.float32(-(2**24))) == 2**13 + 1
    assert x * x - np.float32(2**24) == 2**13


# SiLU


def test_margin_of_the_sigmoid_is_the_least_distance_from_a_tie() -> None:
    """At 1/64 with zero point 0, by brute force over the 256 codes."""
    q = quantization(1 / 64)
    steps = 256 / (1 + np.exp(-np.arange(-128, 128) / 64))
    assert silu.sigmoid_margin(q) == pytest.approx(np.abs(steps % 1 - 0.5).min())


def test_margin_of_the_product_is_nothing_at_an_exact_tie() -> None:
    """Code 1 at scale 1 has the sigmoid 187 of 256; 374/256 out makes that 187/374, a half."""
    assert silu.product_margin(quantization(1), quantization(374 / 256)) < 1e-6
    assert silu.product_margin(quantization(1), quantization(374 / 256 * 1.001)) > 1e-6


def test_ties_beyond_saturation_do_not_count() -> None:
    """A sigmoid of 255.5 of 256 is 255 whichever way it goes."""
    assert runtime_rules.distance_from_tie(np.array([255.5, 12.25]), clamped_from=255) == 0.25
    assert runtime_rules.distance_from_tie(np.array([254.5, 12.25]), clamped_from=255) == 0


def test_within_its_margin_a_sigmoid_a_few_ulp_off_gives_the_same_table() -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for scale in rng.uniform(0.01, 0.1, 40):
        q = quantization(scale, int(rng.integers(-128, 128)))
        if silu.sigmoid_margin(q) < runtime_rules.SIGMOID_MARGIN:
            continue
        kept += 1
        steps = silu.sigmoid_steps(q)
        for error in (-16, 16):
            moved = steps * (1 + error * 2.0**-24)
            assert (saturate(np.rint(moved) - 128) == saturate(np.rint(steps) - 128)).all()
    assert kept > 10
