"""To whom long work says what it begins: a callable that takes the name of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]


def silent(_: str) -> None:
    """The progress callback that says nothing."""
