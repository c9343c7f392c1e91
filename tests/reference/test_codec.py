"""The codec: what JSON of ours may hold, and that anything else is one sentence that names the place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from litehrnet_stage2.reference.contract.codec import MOST_DEPTH, CodecError, decode, parse


@dataclass(frozen=True)
class Part:
    size: int
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"`size` (={self.size}) is negative")


@dataclass(frozen=True)
class Whole:
    name: str
    kind: Literal["a", "b"]
    good: bool
    parts: tuple[Part, ...]
    pair: tuple[int, float]
    counts: Mapping[int, int]
    note: Any = None


WHOLE = Whole("é", "a", True, (Part(1), Part(2, 0.5)), (3, 4.0), {-1: 2, 0: 5})


def plain(**changed: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(dataclasses.asdict(WHOLE))), **changed}


def test_what_was_written_comes_back() -> None:
    assert decode(Whole, parse(json.dumps(dataclasses.asdict(WHOLE)))) == WHOLE


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": 1}, "name is 1, not text"),
        ({"name": "\ud800"}, r"name is '\\ud800', not Unicode text"),
        ({"kind": "c"}, "kind is 'c', not one of 'a', 'b'"),
        ({"good": 1}, "good is 1, not true or false"),
        ({"parts": {}}, r"parts is \{\}, not a list"),
        ({"parts": [{"size": True}]}, r"parts\[0\]\.size is True, not a whole number"),
        ({"parts": [{"size": 1.0}]}, r"parts\[0\]\.size is 1\.0, not a whole number"),
        ({"parts": [{}]}, r"parts\[0\] has no field 'size'"),
        ({"parts": [{"size": -1}]}, r"parts\[0\] cannot be: `size` \(=-1\) is negative"),
        ({"parts": [{"size": 10**30}]}, r"parts\[0\]\.size is 1000.*, not a number between -1e\+15 and 1e\+15"),
        ({"parts": [{"size": 1, "weight": float("inf")}]}, r"parts\[0\]\.weight is inf, not a number between"),
        ({"pair": [1]}, r"pair is \[1\], not a list of 2"),
        ({"counts": {"one": 1}}, "a key of counts is 'one', not a whole number"),
        ({"counts": []}, r"counts is \[\], not an object"),
        ({"extra": 1}, "it has a field 'extra', which is unknown"),
    ],
)
def test_a_wrong_value_is_a_sentence_that_names_its_place(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(CodecError, match=said):
        decode(Whole, plain(**changed), unknown="refuse")


def test_fields_of_a_later_version_are_left_out() -> None:
    assert decode(Whole, plain(extra=1), unknown="ignore") == WHOLE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[NaN]", "holds NaN, which is no number"),
        ("[-Infinity]", "holds -Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 33 + "]" * 33, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        (b'"\xff"', "utf-8"),
        ("1" * 5000, "4300"),
    ],
)
def test_text_that_is_no_strict_json_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        parse(text)


def test_depth_up_to_the_stated_one_is_read() -> None:
    assert parse("[" * MOST_DEPTH + "]" * MOST_DEPTH)
