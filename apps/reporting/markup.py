"""HTML and SVG as text: elements with escaped content, nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable

from litehrnet_stage2.apps.reporting.cells import plain


class Markup(str):
    """Text that is already markup, and is not escaped again."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Attribute names take `_` for `-`, and a trailing one where Python reserves the word."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(str(v))}"' for key, v in attributes.items())
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Parts one after another, plain text escaped."""
    return Markup("".join(part if isinstance(part, Markup) else _escaped(part) for part in parts))


def table(head: Iterable[str], rows: Iterable[Iterable[str]], *, caption: str = "") -> Markup:
    """A table that scrolls sideways where the screen is narrow; the first cell of a row is its header."""
    body = []
    for first, *others in rows:
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others)))
    header = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    title = tag("caption", caption) if caption else Markup("")
    return tag("div", tag("table", title, header, tag("tbody", *body)), class_="scroll", tabindex="0")


def _escaped(text: str) -> str:
    return html.escape(plain(text))
