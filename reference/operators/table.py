"""A function of one code: 256 entries, each so far from a tie that no runtime's float32 can flip it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.quantization import QMAX, QMIN, Codes, Quantization, saturate

Reals = NDArray[np.float64]


def _sigmoid(x: Reals) -> Reals:
    with np.errstate(over="ignore"):  # exp of a large number is infinite, its sigmoid zero
        return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[[Reals], Reals]] = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}
"""By name: float64 of any shape to the same shape. `identity` moves codes from one quantisation to another."""


@dataclass(frozen=True, kw_only=True)
class Table(Operator):
    """`rne(f(sx*(q - zx)) / so) + zo`.

    Attributes:
        function: `f`, one of `FUNCTIONS`.
    """

    function: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.function not in FUNCTIONS:
            raise InputError(f"`function` (={self.function!r}) of `{self.name}` must be one of {', '.join(FUNCTIONS)}")

    def shape(self, *inputs: Shape) -> Shape:
        """That of its input."""
        return inputs[0]

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """Int8 of any shape."""
        return self.entries(reads[0], out)[codes[0].astype(np.int16) - QMIN]

    def entries(self, read: Quantization, out: Quantization) -> Codes:
        """The result of every code -128..127: int8 `[256]`."""
        return saturate(np.rint(self._steps(read, out)) + out.zero_point)

    def _steps(self, read: Quantization, out: Quantization) -> Reals:
        x = np.float64(read.scale) * (np.arange(QMIN, QMAX + 1) - read.zero_point)
        return FUNCTIONS[self.function](x) / np.float64(out.scale)

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """No entry near a tie that the clamp does not hide."""
        yield Check(
            self.input if out == SIGMOID_OUTPUT else self.name,
            lambda: self._margin(reads[0], out) >= runtime_rules.TABLE_MARGIN,
            f"no scale near it keeps every {self.function} away from a tie",
        )

    def _margin(self, read: Quantization, out: Quantization) -> float:
        steps = self._steps(read, out)
        inside = steps > QMIN - out.zero_point - 0.75
        return runtime_rules.distance_from_tie(steps[inside], clamped_from=QMAX - out.zero_point)


SIGMOID_OUTPUT = Quantization(np.float32(1 / 256), -128)
"""The grid on which every runtime's int8 sigmoid lies; what is nudged is the input then."""
