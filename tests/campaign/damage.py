"""What accidents and hostile authors do to files: flips, cuts, swaps, and lies where a format has room for them."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

Rng = np.random.Generator

EVIL: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-45, 1e300, -1e300),
    *("", "\0", "\ud800", "../../../etc/passwd", "/etc/passwd", "C:\\x", "a" * 100_000, "\x1b[2J", "[bold]x[/]", "nan"),
    *([], {}, [[]], [None], {"": None}, [0] * 1000, {"__class__": "x"}, "-> x", [1, 2, 3, 4], [-1, -1, -1, -1]),
    *([10**9] * 4, [1, 2**20, 2**20, 2**20], [1, 0, 0, 0], "int8", "O"),
)
"""Values that a field may turn into."""

TEXTS = (
    b"", b"{", b"null", b"[]", b"{}", b'"text"', b"5", b"NaN", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}", b'{"schema_version": "2.0"}', b'{"schema_version": 3, "runs": []}', b"1" * 100_000, b"\0" * 1000,
    b'{"a": 1e999}', b'{"a": Infinity}', b'{"a": 1, "a": 2}', b'{"\\ud800": 1}', b"// comment\n{}",
)  # fmt: skip
"""Whole texts in the place of JSON."""


def accident(content: bytes, rng: Rng) -> tuple[str, bytes]:
    """One flip, cut, growth or swap, which changes the content."""
    kind = ("flip", "cut", "growth", "swap", "zeros")[rng.integers(5)]
    bad = bytearray(content)
    if kind == "flip" or len(bad) < 8:
        kind = "flip"
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
    elif kind == "cut":
        del bad[rng.integers(len(bad)) :]
    elif kind == "growth":
        bad += rng.bytes(int(rng.integers(1, 100)))
    elif kind == "zeros":
        start = int(rng.integers(len(bad)))
        bad[start : start + 64] = bytes(len(bad[start : start + 64]))
    else:
        start, stop = sorted(int(i) for i in rng.integers(len(bad), size=2))
        bad[start:stop] = bad[start:stop][::-1]
    if bytes(bad) == content:
        bad[0] ^= 1
    return kind, bytes(bad)


def many_flips(content: bytes, rng: Rng) -> bytes:
    """Several bytes replaced, extremes among them: what a format's own numbers are made of."""
    bad = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        place = int(rng.integers(len(bad)))
        width = int(rng.choice([1, 2, 4, 8]))
        value = [b"\0" * width, b"\xff" * width, b"\xff" * (width - 1) + b"\x7f", rng.bytes(width)][rng.integers(4)]
        bad[place : place + width] = value[: len(bad) - place]
    return bytes(bad)


def lie(values: Any, rng: Rng) -> tuple[str, Any]:
    """JSON with one to three of its values replaced by evil ones, dropped or doubled; and which the last was."""
    bad = copy.deepcopy(values)
    where = ""
    for _ in range(int(rng.integers(1, 4))):
        where, bad = _one_lie(bad, rng)
    return where, bad


def _one_lie(bad: Any, rng: Rng) -> tuple[str, Any]:
    places = list(_places(bad))
    if not places:
        return "all of it", EVIL[rng.integers(len(EVIL))]
    path = places[rng.integers(len(places))]
    parent = bad
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    kind = rng.integers(5)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[EVIL[rng.integers(16, 26)] or "x"] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent.insert(0, copy.deepcopy(parent[key]))
    elif kind == 3 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
        parent[key] = parent[key] * float(rng.choice([-1, 0, 2, 1e3, 1e-3, 1e9])) + float(rng.choice([0, 0, 0.5, 1]))
    else:
        parent[key] = copy.deepcopy(EVIL[rng.integers(len(EVIL))])
    return "/".join(map(str, path)), bad


def _places(values: Any, path: tuple[Any, ...] = ()) -> Any:
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in entries:
        yield (*path, key)
        if not isinstance(value, list) or len(value) < 200:
            yield from _places(value, (*path, key))


def as_json(values: Any) -> bytes:
    """Bytes of JSON as Python's writer has it, lone surrogates and infinities included."""
    return json.dumps(values).encode()
