"""What a convolution in codes refuses, and the figures that freezing reads off it, each against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators import Conv
from tests.reference.arithmetic.scalar import exact, f32, quantization


def conv(shape: tuple[int, int, int, int] = (4, 2, 1, 1), **changes: Any) -> Conv:
    channels = shape[0]
    fields: dict[str, Any] = {
        "weight": np.ones(shape, np.int8),
        "weight_scale": np.ones(channels, np.float32),
        "bias": np.zeros(channels, np.int32),
    }
    return Conv(name="y", inputs=("x",), **fields | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": np.ones((4, 2, 1, 1), np.int16)},
        {"weight": np.ones((4, 2), np.int8)},
        {"weight": [[[[1]]]]},
        {"weight_scale": np.ones(4, np.float64)},
        {"weight_scale": np.ones((4, 1), np.float32)},
        {"bias": np.zeros(4, np.int64)},
    ],
)
def test_an_array_of_another_kind_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(changes))}` of `y` must be"):
        conv(**changes)


@pytest.mark.parametrize(
    ("channels", "scales", "biases"),
    [(4, 3, 4), (4, 4, 3), (0, 0, 0)],
)
def test_each_channel_has_a_scale_and_a_bias(channels: int, scales: int, biases: int) -> None:
    with pytest.raises(InputError, match="a scale and a bias for each"):
        conv(
            (channels, 2, 1, 1),
            weight_scale=np.ones(scales, np.float32),
            bias=np.zeros(biases, np.int32),
        )


@pytest.mark.parametrize("scale", [np.inf, np.nan, -1, 0])
def test_a_weight_scale_is_finite_and_positive(scale: float) -> None:
    with pytest.raises(InputError, match="every weight scale"):
        conv(weight_scale=np.array([1, 1, 1, scale], np.float32))


@pytest.mark.parametrize("field", ["stride", "dilation", "padding"])
@pytest.mark.parametrize(
    "spoil", [list, lambda value: value[:-1], lambda value: (-1, *value[1:]), lambda v: (1.0, *v[1:])]
)
def test_geometry_is_a_tuple_of_whole_numbers(field: str, spoil: Callable[[tuple[int, ...]], object]) -> None:
    value = (1, 1, 1, 1) if field == "padding" else (1, 1)
    assert getattr(conv(**{field: value}), field) == value
    with pytest.raises(InputError, match=f"`{field}`"):
        conv(**{field: spoil(value)})


def test_a_stride_of_none_is_refused_and_a_padding_of_none_is_not() -> None:
    for field in ("stride", "dilation"):
        with pytest.raises(InputError, match=f"`{field}`"):
            conv(**{field: (0, 1)})
    assert conv(padding=(0, 0, 0, 0)).padding == (0, 0, 0, 0)


@pytest.mark.parametrize("groups", [0, -2, 3, 2.0, True])
def test_groups_divide_the_channels(groups: object) -> None:
    assert conv(groups=2).groups == 2
    assert conv(groups=1).groups == 1
    with pytest.raises(InputError, match="`groups`"):
        conv(groups=groups)


def test_depthwise_is_one_channel_for_each_group() -> None:
    assert conv((4, 1, 3, 3), groups=4).depthwise
    assert not conv((4, 1, 3, 3), groups=2).depthwise
    assert not conv((4, 2, 1, 1), groups=4).depthwise
    assert not conv((4, 2, 1, 1)).depthwise


@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 3, 5, 5), (1, 4, 5, 5)])
def test_a_map_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    assert conv(groups=2).shape((1, 4, 5, 5)) == (1, 4, 5, 5)
    assert conv().shape((1, 2, 5, 5)) == (1, 4, 5, 5)
    with pytest.raises(InputError, match="takes 2 channels"):
        conv().shape(shape)


def test_a_kernel_may_be_as_large_as_its_map_and_no_larger() -> None:
    assert conv((4, 2, 3, 3)).shape((1, 2, 3, 3)) == (1, 4, 1, 1)
    assert conv((4, 2, 3, 3), dilation=(2, 1), padding=(1, 0, 1, 1)).shape((1, 2, 3, 3)) == (1, 4, 1, 2)
    with pytest.raises(InputError, match="larger than its input"):
        conv((4, 2, 3, 3)).shape((1, 2, 3, 2))


def test_the_multiplier_is_two_float32_operations() -> None:
    scales = np.array([0.013, 0.5, 3e-5, 7], np.float32)
    node, read, out = conv(weight_scale=scales), quantization(0.037), quantization(0.11)
    for found, scale in zip(node.multiplier(read, out), scales, strict=True):
        assert float(found) == f32(f32(exact(read) * exact(quantization(scale))) / float(out.scale))


def test_the_least_scale_is_that_of_the_largest_multiplier() -> None:
    node = conv(weight_scale=np.array([0.5, 4, 1, 2], np.float32))
    assert dict(node.least_scales([quantization(0.25)], quantization(1))) == {"y": 1 / 256}


def test_a_sum_of_2_to_the_31_is_refused() -> None:
    node, multiplier, out = conv((1, 2, 1, 1)), np.float32([2.0**-25]), quantization(1)
    assert node.requantize(np.full((1, 1, 1, 1), 2.0**31 - 2**26), multiplier, out).item() == 62
    for total in (2.0**31, -(2.0**31)):
        with pytest.raises(InputError, match="int32"):
            node.requantize(np.full((1, 1, 1, 1), total), multiplier, out)


@pytest.mark.parametrize("zero_point", [-128, -5, 0, 64, 127])
def test_the_reach_is_the_largest_sum_that_codes_can_give(zero_point: int) -> None:
    rng = np.random.default_rng(zero_point + 200)
    weight, bias = rng.integers(-127, 128, (3, 4, 1, 2)).astype(np.int8), rng.integers(-900, 900, 3).astype(np.int32)
    reached = 0
    for channel, offset in zip(weight, bias.tolist(), strict=True):
        terms = [[int(w) * (code - zero_point) for code in (-128, 127)] for w in channel.ravel()]
        reached = max(reached, *(abs(offset + sum(map(extreme, terms))) for extreme in (min, max)))
    assert conv((3, 4, 1, 2), weight=weight, bias=bias).reach(zero_point) == reached
