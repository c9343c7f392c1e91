"""Convolutions on wider cells: the same codes as the convolution that they stand for, and only where they cost less."""

from __future__ import annotations

import numpy as np
import pytest

from litehrnet_stage2.converters.side_by_side import SideBySide, side_by_side
from litehrnet_stage2.reference.operators import Conv
from litehrnet_stage2.reference.quantization import Codes, Quantization

READ, OUT = Quantization(np.float32(0.02), -7), Quantization(np.float32(0.5), 9)


def conv(*weight: int, **geometry: object) -> Conv:
    rng = np.random.default_rng(sum(weight))
    return Conv(
        name="y",
        inputs=("x",),
        weight=rng.integers(-127, 128, weight).astype(np.int8),
        weight_scale=rng.uniform(0.01, 0.02, weight[0]).astype(np.float32),
        bias=rng.integers(-3000, 3000, weight[0]).astype(np.int32),
        **geometry,  # type: ignore[arg-type]
    )


def wider(codes: Codes, cells: int) -> Codes:
    """The same bytes in channels-last memory, with so many cells as one."""
    count, channels, height, width = codes.shape
    last = codes.transpose(0, 2, 3, 1).reshape(count, height, width // cells, cells * channels)
    return last.transpose(0, 3, 1, 2)


def check(one: Conv, form: SideBySide, shape: tuple[int, int, int, int]) -> None:
    codes = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    due = wider(one.evaluate([codes], [READ], OUT), form.writes)
    np.testing.assert_array_equal(form.conv.evaluate([wider(codes, form.reads)], [READ], OUT), due)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((5, 5), (2, 2), (2, 2, 2, 2)),
        ((3, 3), (2, 2), (1, 1, 1, 1)),
        ((3, 3), (2, 2), (0, 0, 0, 0)),
        ((3, 3), (2, 2), (0, 0, 1, 1)),
        ((7, 7), (2, 2), (3, 3, 3, 3)),
        ((4, 4), (4, 2), (0, 1, 2, 3)),
        ((2, 2), (2, 2), (0, 0, 0, 0)),
        ((1, 1), (1, 2), (0, 0, 0, 0)),
    ],
)
def test_a_stem_on_pairs_of_columns_gives_the_same_codes(
    channels: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int, int, int]
) -> None:
    one, shape = conv(6, channels, *kernel, stride=stride, padding=padding), (1, channels, 16, 20)
    form = side_by_side(one, shape)
    assert (form.reads, form.writes, form.conv.stride[1]) == (2, 1, 1)
    check(one, form, shape)


@pytest.mark.parametrize(("outputs", "width", "together"), [(1, 24, 8), (2, 24, 8), (3, 20, 5), (4, 10, 2), (1, 6, 6)])
def test_a_head_on_several_cells_at_once_gives_the_same_codes(outputs: int, width: int, together: int) -> None:
    one, shape = conv(outputs, 12, 1, 1), (1, 12, 5, width)
    form = side_by_side(one, shape)
    assert (form.reads, form.writes) == (together, together)
    check(one, form, shape)


@pytest.mark.parametrize(
    ("one", "width"),
    [
        (conv(16, 3, 3, 3, padding=(1, 1, 1, 1)), 20),  # a stride of one
        (conv(16, 8, 3, 3, stride=(2, 2)), 20),  # enough channels
        (conv(16, 3, 3, 3, stride=(2, 2)), 21),  # a column is left over
        (conv(16, 3, 1, 1, stride=(2, 4)), 20),
        (conv(9, 12, 1, 1), 24),  # enough results
        (conv(4, 1, 1, 1, groups=4), 24),
        (conv(1, 12, 1, 1), 11),  # no cells to join
        (conv(1, 1, 1, 1), 24),  # depthwise, which has another kernel
    ],
)
def test_others_stay_as_they_are(one: Conv, width: int) -> None:
    shape = (1, one.weight.shape[1] * one.groups, 12, width)
    form = side_by_side(one, shape)
    assert (form.reads, form.writes) == (1, 1)
    assert form.conv is one
