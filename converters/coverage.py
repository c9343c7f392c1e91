"""What the coverage contract is held against: the nodes of the function."""

from __future__ import annotations

from collections import Counter

from litehrnet_stage2.reference.contract.coverage import Coverage, CoverageError
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.operators import Operator

__all__ = ["Coverage", "CoverageError", "node_counts"]


def node_counts(function: IntegerFunction) -> Counter[type[Operator]]:
    """How many nodes of each kind the function has."""
    return Counter(type(node) for node in function.nodes)
