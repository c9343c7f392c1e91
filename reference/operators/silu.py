"""SiLU in codes: the sigmoid on its fixed grid of 1/256, then a product. A function of one code: 256 entries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.quantization import QMAX, QMIN, Codes, Quantization, saturate

SIGMOID = Quantization(np.float32(1 / 256), -128)
"""What a sigmoid is quantised with: it never leaves [0, 1]."""

LEAST_MULTIPLIER, MOST_MULTIPLIER = 2.0**-16, 2.0**8  # XNNPACK, qs8 multiplication


@dataclass(frozen=True, kw_only=True)
class SiLU(Operator):
    """`qs = rne(256*sigmoid(s*(q - z))) - 128`, then `rne(f32((q-z)*(qs+128)) * M) + zo`."""

    def shape(self, *inputs: Shape) -> Shape:
        """That of its input."""
        return inputs[0]

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 of any shape."""
        return silu_table(reads[0], out)[codes[0].astype(np.int16) - QMIN]

    def least_scales(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[tuple[str, float]]:
        """The result's and the input's, so that the product's multiplier is what XNNPACK takes."""
        yield self.name, float(reads[0].scale * SIGMOID.scale) / MOST_MULTIPLIER
        yield self.input, float(out.scale) * LEAST_MULTIPLIER / float(SIGMOID.scale)

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """No sigmoid and no product so near a tie that another implementation's float32 could flip it."""
        yield Check(
            self.input,
            lambda: sigmoid_margin(reads[0]) >= runtime_rules.SIGMOID_MARGIN,
            "no scale near it keeps every sigmoid away from a tie",
        )
        yield Check(
            self.name,
            lambda: product_margin(reads[0], out) >= runtime_rules.PRODUCT_MARGIN,
            "no scale near it keeps every x*sigmoid(x) away from a tie",
        )


def silu_table(inp: Quantization, out: Quantization) -> Codes:
    """SiLU of every code -128..127: int8 `[256]`."""
    codes = np.arange(QMIN, QMAX + 1)
    sigmoid = saturate(np.rint(sigmoid_steps(inp)) + SIGMOID.zero_point).astype(np.int32)
    product = (codes - inp.zero_point) * (sigmoid - SIGMOID.zero_point)
    multiplier = (inp.scale * SIGMOID.scale) / out.scale
    return saturate(np.rint(product.astype(np.float32) * multiplier) + out.zero_point)


def sigmoid_steps(inp: Quantization) -> NDArray[np.float64]:
    """`256 * sigmoid(s*(q - z))` of every code, before rounding: float64 `[256]`."""
    x = np.float64(inp.scale) * (np.arange(QMIN, QMAX + 1) - inp.zero_point)
    with np.errstate(over="ignore"):  # exp of a large number is infinite, its sigmoid zero
        return 256 / (1 + np.exp(-x))


def sigmoid_margin(inp: Quantization) -> float:
    """Least distance of any of the 256 sigmoids from a tie, in codes."""
    return runtime_rules.distance_from_tie(sigmoid_steps(inp), clamped_from=QMAX - SIGMOID.zero_point)


def product_margin(inp: Quantization, out: Quantization) -> float:
    """Least distance of any of the 256 products `x * sigmoid(x)` from a tie, in codes."""
    sigmoid = np.clip(np.rint(sigmoid_steps(inp)), 0, QMAX - SIGMOID.zero_point)
    multiplier = (inp.scale * SIGMOID.scale) / out.scale
    products = (np.arange(QMIN, QMAX + 1) - inp.zero_point) * sigmoid * np.float64(multiplier)
    return runtime_rules.distance_from_tie(products, clamped_from=QMAX - out.zero_point)
