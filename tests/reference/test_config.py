"""What a configuration accepts."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from litehrnet_stage2.reference.config import Stage2Config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"in_channels": 0}, r"`in_channels` \(=0\) must be made of integers from 1 to"),
        ({"num_channels": (32, 0)}, r"`num_channels` \(=\(32, 0\)\) must be made of integers from 1 to"),
        ({"num_channels": (32,)}, r"`num_channels` \(=\(32,\)\) must have two entries"),
        ({"num_channels": 32}, r"`num_channels` \(=32\) must have two entries"),
        ({"num_blocks": (2, -1)}, r"`num_blocks` \(=\(2, -1\)\) must be made of integers from 0 to"),
        ({"num_blocks": (1, 2, 3)}, r"`num_blocks` \(=\(1, 2, 3\)\) must have two entries"),
        ({"expansion": 1.5}, r"`expansion` \(=1.5\) must be made of integers from 1 to"),
        ({"in_channels": 10**9}, r"`in_channels` \(=1000000000\) must be made of integers from 1 to 1024"),
        ({"num_channels": (32, 1025)}, r"`num_channels` \(=\(32, 1025\)\) must be made of integers from 1 to 1024"),
        ({"num_blocks": (10**6, 2)}, r"`num_blocks` \(=\(1000000, 2\)\) must be made of integers from 0 to 32"),
        ({"expansion": 10**100}, r"`expansion` \(=10+\.\.\.0+\) must be made of integers from 1 to 16"),
        ({"antialias": 2}, r"`antialias` \(=2\) must be true or false"),
        ({"expansion": True}, r"`expansion` \(=True\) must be made of integers from 1 to"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_accepted(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage2Config(**values)


def test_defaults_are_the_specifications_values() -> None:
    assert dataclasses.asdict(Stage2Config()) == {
        "in_channels": 32,
        "num_channels": (32, 64),
        "num_blocks": (2, 2),
        "expansion": 2,
        "antialias": True,
    }


def test_a_config_survives_json() -> None:
    config = Stage2Config(in_channels=8, num_channels=(16, 24), num_blocks=(0, 3), expansion=3, antialias=False)
    assert Stage2Config.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown Stage2Config key 'depth': .*antialias, expansion, in_channels"):
        Stage2Config.from_dict({"depth": 3})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((32, 64, 128), r"must have rank 4, \[B,32,H,W\], but have shape \(32, 64, 128\)"),
        ((1, 31, 64, 128), r"must have 32 channels, but have 31"),
        ((1, 32, 63, 128), r"even height and width, but are 63x128"),
        ((1, 32, 64, 127), r"even height and width, but are 64x127"),
        ((1, 32, 0, 128), r"even height and width, but are 0x128"),
    ],
)
def test_features_of_a_wrong_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage2Config().check_features(shape)
