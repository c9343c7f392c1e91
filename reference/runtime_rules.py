"""Computes what runtimes round differently as each of them does, over every pair of codes (numpy only).

A convolution is one float32 multiply, rounded half to even, in XNNPACK and MLAS alike. Additions differ:
fixed point or float32, half up, half to even or half away from zero, with and without fused multiply-add.
Their domain is finite, so whether they agree is not a matter of sampling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.quantization import QMAX, QMIN, Codes, Quantization, saturate

F32 = np.float32

SIGMOID_MARGIN = 2.0**-11
"""Least distance from a tie of `256 * sigmoid`: allows a sigmoid 1.9e-6 off, sixteen float32 ulp below 1."""

PRODUCT_MARGIN = 2.0**-13
"""Least distance from a tie of the product: allows its zero point to be added in float32 before rounding."""

TABLE_MARGIN = 2.0**-13
"""Least distance from a tie of an entry: allows a float32 function a few ulp off, and its zero point added before."""

_CODES = np.arange(QMIN, QMAX + 1, dtype=np.int64)
_PAIRS = (_CODES[:, None], _CODES[None, :])


def code_pairs() -> tuple[Codes, Codes]:
    """All 65,536 pairs of codes: two of int8 `[256, 256]`."""
    a, b = (codes.astype(np.int8) for codes in np.broadcast_arrays(*_PAIRS))
    return a, b


def additions(qa: Quantization, qb: Quantization, out: Quantization) -> Iterator[tuple[str, Codes]]:
    """The sum of all 65,536 code pairs under each runtime's rule: (rule, int8 `[256, 256]`)."""
    ratio_a, ratio_b = qa.scale / out.scale, qb.scale / out.scale  # float32
    yield "XNNPACK fixed point", _xnnpack(qa, qb, out, ratio_a, ratio_b)
    yield "MLAS Arm fixed point", _mlas_arm(qa, qb, out, ratio_a, ratio_b)
    for rule, total in _mlas_x86(qa, qb, out, ratio_a, ratio_b):
        yield f"MLAS x86 float32, {rule}", saturate(np.rint(total) - 128)
    for rule, total in _centred_float32(qa, qb, ratio_a, ratio_b):
        yield f"centred float32, {rule}", saturate(np.rint(total) + F32(out.zero_point))


def products(qa: Quantization, qb: Quantization, out: Quantization) -> Iterator[tuple[str, Codes]]:
    """The product of all 65,536 code pairs under each runtime's rule: (rule, int8 `[256, 256]`).

    A product of two codes has 17 bits and a multiplier 24, so float64 holds it exactly.
    """
    multiplier = (qa.scale * qb.scale) / out.scale  # float32
    exact = ((_PAIRS[0] - qa.zero_point) * (_PAIRS[1] - qb.zero_point)).astype(np.float64)
    scaled = exact.astype(F32) * multiplier
    yield "XNNPACK x86 float32", saturate(np.rint(scaled) + F32(out.zero_point))
    yield "XNNPACK Arm fixed point", saturate(np.floor(exact * multiplier + 0.5) + out.zero_point)
    zero = F32(out.zero_point + 128)
    yield "MLAS float32, plain", saturate(np.rint(scaled + zero) - 128)
    yield "MLAS float32, fused", saturate(np.rint((exact * multiplier + zero).astype(F32)) - 128)


def means(raw: NDArray[np.int64], cells: int, read: Quantization, out: Quantization) -> Iterator[tuple[str, Codes]]:
    """The mean of `cells` codes under each runtime's rule, of the sums `raw` of the codes: (rule, int8 like `raw`)."""
    centred = raw - cells * read.zero_point
    multiplier = (read.scale / out.scale) / F32(cells)
    scaled = centred.astype(F32) * multiplier
    yield "MLAS float32", saturate(np.rint(scaled) + F32(out.zero_point))
    yield "MLAS float32, zero point added before", saturate(np.rint(scaled + F32(out.zero_point + 128)) - 128)
    yield (
        "NEON float32, half away from zero",
        saturate(np.trunc(scaled + np.copysign(F32(0.5), scaled)) + F32(out.zero_point)),
    )
    zero = F32(out.zero_point) - F32(read.zero_point) * (read.scale / out.scale)
    yield "XNNPACK float32, of the raw sum", saturate(np.rint(raw.astype(F32) * multiplier + zero))
    fused = raw.astype(np.float64) * multiplier + zero
    yield "XNNPACK float32, of the raw sum, fused", saturate(np.rint(fused.astype(F32)))


def distance_from_tie(values: NDArray[np.float64], clamped_from: int) -> float:
    """Least distance of any value from a tie, of those that the clamp at `clamped_from` does not hide."""
    distance = np.abs(values - np.floor(values) - 0.5)
    return float(np.min(distance[values < clamped_from + 0.25], initial=0.5))


def _xnnpack(qa: Quantization, qb: Quantization, out: Quantization, ratio_a: F32, ratio_b: F32) -> Codes:
    """21-bit multipliers, one shift, half up (XNNPACK, qs8-vadd)."""
    (multiplier_a, multiplier_b), shift = _fixed_point(20, ratio_a, ratio_b)
    total = (_PAIRS[0] - qa.zero_point) * multiplier_a + (_PAIRS[1] - qb.zero_point) * multiplier_b
    return saturate(((total + (1 << (shift - 1))) >> shift) + out.zero_point)


def _mlas_arm(qa: Quantization, qb: Quantization, out: Quantization, ratio_a: F32, ratio_b: F32) -> Codes:
    """22-bit multipliers, one shift, half away from zero (MLAS, qladd, NEON)."""
    (multiplier_a, multiplier_b), shift = _fixed_point(21, ratio_a, ratio_b)
    total = (_PAIRS[0] - qa.zero_point) * multiplier_a + (_PAIRS[1] - qb.zero_point) * multiplier_b
    return saturate(((total - (total < 0) + (1 << (shift - 1))) >> shift) + out.zero_point)


def _fixed_point(bits: int, *ratios: F32) -> tuple[list[int], int]:
    """Ratios as integers of at most `bits + 1` bits, and the shift that undoes it."""
    _, exponent = np.frexp(max(ratios))
    shift = bits - (int(exponent) - 1)
    return [int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios], shift


def _mlas_x86(
    qa: Quantization, qb: Quantization, out: Quantization, ratio_a: F32, ratio_b: F32
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Float32 on uint8 codes, the zero points gathered in one constant (MLAS, qladd, SSE2 and AVX2).

    A compiler may contract the constant's own multiply-adds, so each way to compute it counts.
    """
    a, b = (codes + 128 for codes in _PAIRS)
    za, zb, zo = (F32(q.zero_point + 128) for q in (qa, qb, out))
    constants: dict[str, F32 | NDArray[np.float32]] = {
        "plain constant": zo - (ratio_a * za + ratio_b * zb),
        "fused constant a": zo - fused_multiply_add(za, ratio_a, ratio_b * zb),
        "fused constant b": zo - fused_multiply_add(zb, ratio_b, ratio_a * za),
    }
    a32, b32 = a.astype(F32), b.astype(F32)
    for name, constant in constants.items():
        yield f"SSE2, {name}", (constant + a32 * ratio_a) + b32 * ratio_b
        yield f"AVX2, {name}", fused_multiply_add(a, ratio_a, fused_multiply_add(b, ratio_b, constant))
        yield f"AVX2 swapped, {name}", fused_multiply_add(b, ratio_b, fused_multiply_add(a, ratio_a, constant))


def _centred_float32(
    qa: Quantization, qb: Quantization, ratio_a: F32, ratio_b: F32
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Float32 on codes minus zero point, as the Core ML program has it, with and without contraction."""
    a, b = _PAIRS[0] - qa.zero_point, _PAIRS[1] - qb.zero_point
    a32, b32 = a.astype(F32), b.astype(F32)
    yield "plain", a32 * ratio_a + b32 * ratio_b
    yield "fused a", fused_multiply_add(a, ratio_a, b32 * ratio_b)
    yield "fused b", fused_multiply_add(b, ratio_b, a32 * ratio_a)


def fused_multiply_add(x: NDArray[np.int64] | F32, y: F32, z: NDArray[np.float32] | F32) -> NDArray[np.float32]:
    """`x*y + z` rounded once: a code times a float32 is exact in float64."""
    exact = np.asarray(x, np.float64) * y + z
    return exact.astype(F32)
