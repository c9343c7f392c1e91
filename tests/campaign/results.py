"""Hostile result files: read, and shown in every way that `stage2 report` and `bench` show them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from rich.console import Console

from litehrnet_stage2.apps.reporting.markdown import markdown
from litehrnet_stage2.apps.reporting.page import page
from litehrnet_stage2.apps.reporting.terminal import show
from litehrnet_stage2.runtime.latency import read_result
from tests.campaign.damage import TEXTS, accident, as_json, lie, many_flips
from tests.campaign.judge import Case

MARK = "<img src=x onerror=alert(1)>\x1b[2J[bold red]"


def files(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A result that is damaged, lies in some fields, or has markup for text."""
    rng = np.random.default_rng(seed)
    text = (folder / "result.json").read_bytes()
    good = _short(json.loads(text))
    text = as_json(good)
    while True:
        path = scratch / "result.json"
        kind = ("accident", "flips", "lie", "lie", "lie", "markup", "text")[rng.integers(7)]
        what = ""
        if kind == "accident":
            what, bad = accident(text, rng)
        elif kind == "flips":
            bad = many_flips(text, rng)
        elif kind == "lie":
            what, values = lie(good, rng)
            bad = as_json(values)
        elif kind == "markup":
            bad = as_json(_marked(good, rng))
        else:
            bad = TEXTS[rng.integers(len(TEXTS))]
        path.write_bytes(bad)
        yield Case(f"{kind} {what}", lambda path=path: _shown(path))


def _shown(path: Path) -> None:
    result = read_result(path)
    html = page([result, result])
    _Tags().feed(html)
    if "\x1b" in html or "\x1b" in markdown([result]):
        raise AssertionError("an escape went through to a page")
    terminal = io.StringIO()
    for run in result.runs:
        show(run, Console(file=terminal, width=100))
    if "\x1b" in terminal.getvalue():
        raise AssertionError("an escape went through to the terminal")


class _Tags(HTMLParser):
    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("img", "script"):
            raise AssertionError(f"a file's text became a <{tag}>")


def _short(values: object) -> object:
    """The same with few samples: what is tried is everything around them."""
    if isinstance(values, dict):
        return {name: _short(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_short(value) for value in (values[:6] if len(values) > 20 else values)]
    return values


def _marked(values: object, rng: np.random.Generator) -> object:
    if isinstance(values, dict):
        return {name: _marked(value, rng) for name, value in values.items()}
    if isinstance(values, list):
        return [_marked(value, rng) for value in values]
    return MARK if isinstance(values, str) and values != "3.0" and rng.integers(2) else values
