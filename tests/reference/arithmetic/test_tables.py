"""Functions of one code: every entry against its definition, and which entries near a tie count."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.operators import SiLU, Table, silu
from litehrnet_stage2.reference.operators.table import SIGMOID_OUTPUT
from litehrnet_stage2.reference.quantization import Quantization
from tests.reference.arithmetic.scalar import clamp, half_even, quantization

FUNCTIONS: dict[str, Callable[[float], float]] = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_entry_of_a_table_is_its_function(function: str) -> None:
    read, out = quantization(0.0371, 11), quantization(0.0093, -71)
    node = Table(name="y", inputs=("x",), function=function)
    codes = np.arange(-128, 128).astype(np.int8)
    found = node.evaluate([codes], [read], out)
    values = [FUNCTIONS[function](float(read.scale) * (code - 11)) / float(out.scale) for code in range(-128, 128)]
    assert found.tolist() == [clamp(half_even(value) - 71) for value in values]
    assert len(set(found.tolist())) > 30


def holds(read: Quantization, out: Quantization) -> bool:
    (check,) = Table(name="y", inputs=("x",), function="identity").checks([read], out)
    return check.holds()


def test_a_tie_counts_wherever_the_clamp_does_not_hide_it() -> None:
    step = 100.5 / 251  # 251 is prime: no smaller multiple of it is near a tie
    assert not holds(quantization(step, 123), quantization(1, 100))  # -100.5, far above the lowest, -228
    assert holds(quantization(step, -124), quantization(1, 100))  # 100.5, above the highest, 27
    assert not holds(quantization(step, -124), quantization(1, -100))  # 100.5, below the highest, 227
    assert not holds(quantization(1.5, 127), quantization(1, -126))  # -1.5, above the lowest, -2


def test_a_margin_may_be_exactly_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    near = quantization(0.5 + 2.0**-13, -128)
    assert holds(near, quantization(1, 126))
    assert not holds(quantization(0.5 + 2.0**-14, -128), quantization(1, 126))
    monkeypatch.setattr(silu, "sigmoid_margin", lambda read: runtime_rules.SIGMOID_MARGIN)
    monkeypatch.setattr(silu, "product_margin", lambda read, out: runtime_rules.PRODUCT_MARGIN)
    assert all(check.holds() for check in SiLU(name="y", inputs=("x",)).checks([near], near))


def test_a_product_of_silu_is_rounded_to_float32_before_it_is_to_a_code() -> None:
    read, out = quantization(0.9530937671661377, -109), quantization(0.15871833264827728, -54)
    assert silu.silu_table(read, out)[-82 + 128] == 108  # 107 of the exact product


def test_the_grid_of_a_sigmoid_is_float32() -> None:
    assert (type(SIGMOID_OUTPUT.scale), SIGMOID_OUTPUT) == (np.float32, quantization(1 / 256, -128))
