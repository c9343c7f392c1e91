"""Counts what the nodes of a function become in a format: the coverage contract is compared with that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from litehrnet_stage2.reference.contract.coverage_contract import Coverage, CoverageError
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import Lowerings
from litehrnet_stage2.reference.operators import Operator

__all__ = ["Coverage", "CoverageError", "always", "counted", "node_counts"]


OperatorNames: TypeAlias = Callable[[IntegerFunction, Any], Sequence[str]]
"""What a node becomes, by a runtime's names for its operators."""


def always(*names: str) -> OperatorNames:
    """The same operators, whatever the node."""
    return lambda function, node: names


def counted(function: IntegerFunction, rows: Lowerings[OperatorNames]) -> Counter[str]:
    """How many operators of each name a function becomes, by a table from node kind to names."""
    return Counter(name for node in function.nodes for name in rows[type(node)](function, node))


def node_counts(function: IntegerFunction) -> Counter[type[Operator]]:
    """How many nodes of each kind the function has."""
    return Counter(type(node) for node in function.nodes)
