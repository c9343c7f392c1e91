"""What an int8 code means: per-tensor affine quantisation (numpy only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError

QMIN, QMAX = -128, 127

Codes: TypeAlias = NDArray[np.int8]


@dataclass(frozen=True)
class Quantization:
    """Per-tensor affine int8: real value `scale * (code - zero_point)`; `scale` float32, code int8.

    Raises:
        ValueError: the scale is not finite and positive, or the zero point is no int8 code.
    """

    scale: np.float32
    zero_point: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"a scale (={self.scale}) must be finite and positive")
        if type(self.zero_point) is not int or not QMIN <= self.zero_point <= QMAX:
            raise InputError(f"a zero point (={self.zero_point!r}) must be an integer in [{QMIN}, {QMAX}]")

    def quantize(self, x: NDArray[np.float32]) -> Codes:
        """`rne(x / scale) + zero_point`, clamped: any shape, float32 -> int8."""
        with np.errstate(over="ignore"):  # what leaves float32 is infinite, and clamped as such
            steps = x.astype(np.float32) / self.scale
        return saturate(np.rint(steps) + self.zero_point)

    def dequantize(self, codes: Codes) -> NDArray[np.float32]:
        """`scale * (code - zero_point)`: any shape, int8 -> float32."""
        return self.scale * (codes.astype(np.float32) - np.float32(self.zero_point))


PIXELS = Quantization(np.float32(1 / 255), QMIN)
"""Of an input of pixels: the code is the pixel minus 128, and nothing rounds."""


def saturate(values: NDArray[np.number]) -> Codes:
    """Clamp whole numbers, of any shape and dtype, to int8."""
    codes: Codes = np.clip(values, QMIN, QMAX).astype(np.int8)
    return codes
