"""A callable is told the name of each step of long work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]


def silent(_: str) -> None:
    """The progress callback that says nothing."""
