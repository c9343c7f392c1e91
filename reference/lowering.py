"""A table from kind of node to its translation is checked before anything is translated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.operators import Operator

T = TypeVar("T")
Lowerings: TypeAlias = Mapping[type[Operator], T]


class LoweringError(InputError):
    """A format has no exact form of some operator."""


def check_lowered(function: IntegerFunction, table: Lowerings[T], what: str) -> None:
    """Check that a table has a translation for every node of a function.

    Raises:
        LoweringError: it lacks some; the message names all of them and one node of each kind.
    """
    missing = {type(node).__name__: node.name for node in reversed(function.nodes) if type(node) not in table}
    if missing:
        lacks = ", ".join(f"{kind} (`{name}`)" for kind, name in sorted(missing.items()))
        raise LoweringError(f"{what} has no exact form of {lacks}: leave that target out, or replace the operator")
