"""The operators of the integer function, one file each: its data, its golden rule, what freezing proves of it."""

from __future__ import annotations

from litehrnet_stage2.reference.operators.add import Add
from litehrnet_stage2.reference.operators.base import Check, Operator, Shape
from litehrnet_stage2.reference.operators.concat import Concat
from litehrnet_stage2.reference.operators.conv import Conv
from litehrnet_stage2.reference.operators.max_pool import MaxPool
from litehrnet_stage2.reference.operators.mean import Mean
from litehrnet_stage2.reference.operators.mul import Mul
from litehrnet_stage2.reference.operators.nearest import Nearest
from litehrnet_stage2.reference.operators.resize import Resize
from litehrnet_stage2.reference.operators.silu import SIGMOID, SiLU
from litehrnet_stage2.reference.operators.table import Table

KINDS: dict[str, type[Operator]] = {
    kind.__name__.lower(): kind for kind in (Conv, SiLU, Add, Resize, Table, Mul, Concat, Nearest, MaxPool, Mean)
}
"""By the name that a file has for them. Each converter has a table of these too, and refuses what it lacks."""

__all__ = [
    "KINDS",
    "SIGMOID",
    "Add",
    "Check",
    "Concat",
    "Conv",
    "MaxPool",
    "Mean",
    "Mul",
    "Nearest",
    "Operator",
    "Resize",
    "Shape",
    "SiLU",
    "Table",
]
