"""The rules once more, one value at a time: Python's integers and fractions, and float32 rounded by the C library.

What vectorised numpy computes is held against these. They are slow and obvious, and share no code with it.
"""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st

from litehrnet_stage2.reference.quantization import Quantization

MAGNITUDES = st.floats(2.0**-6, 2.0**6, width=32)
SCALES = MAGNITUDES.map(np.float32)
ZERO_POINTS = st.sampled_from([-128, -127, -3, -1, 0, 1, 2, 64, 127])
QUANTIZATIONS = st.builds(Quantization, SCALES, ZERO_POINTS)
CODES = st.integers(-128, 127)


def quantization(scale: float, zero_point: int = 0) -> Quantization:
    return Quantization(np.float32(scale), zero_point)


def f32(value: float | Fraction) -> float:
    """The float32 nearest to a number, ties to even."""
    if isinstance(value, Fraction):
        return _nearest_float32(value)
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _nearest_float32(value: Fraction) -> float:
    """Rounded once, from a fraction that float64 may not hold."""
    if not value:
        return 0.0
    exponent = math.frexp(abs(float(value)))[1]
    unit = Fraction(2) ** (exponent - 24)
    return float(half_even(value / unit) * unit)


def half_even(value: float | Fraction) -> int:
    return round(Fraction(value))


def half_up(value: float | Fraction) -> int:
    return math.floor(Fraction(value) + Fraction(1, 2))


def half_away(value: float | Fraction) -> int:
    return half_up(abs(Fraction(value))) * (1 if value >= 0 else -1)


def clamp(value: int) -> int:
    return max(-128, min(127, value))


def scale(of: Quantization) -> float:
    return float(of.scale)


def exact(of: Quantization) -> Fraction:
    return Fraction(float(of.scale))


Operands = tuple[Quantization, Quantization, Quantization]


def random_operands(seed: int) -> Operands:
    """Scales up to a factor of ten apart."""
    rng = np.random.default_rng(seed)
    scales, zero_points = 10 ** rng.uniform(-2, -1, 3), rng.integers(-128, 128, 3)
    a, b, out = (quantization(scale, int(zero)) for scale, zero in zip(scales, zero_points, strict=True))
    return a, b, out


def power_of_two_operands() -> Operands:
    """Every sum with an odd term is an exact tie: half up, half to even and half away from zero differ."""
    return quantization(0.5), quantization(0.5, 7), quantization(1.0, -3)


# Of random scales, some on which one bit more in a multiplier or another order of float32 sums shows.
OPERANDS = [pytest.param(random_operands(seed), id=f"random {seed}") for seed in (13, 43)]
OPERANDS.append(pytest.param(power_of_two_operands(), id="powers of two"))
