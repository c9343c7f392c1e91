"""The operators of the integer function, one file each: its data, its golden rule, what freezing proves of it."""

from __future__ import annotations

from litehrnet_stage2.reference.operators.add import Add
from litehrnet_stage2.reference.operators.conv import Conv
from litehrnet_stage2.reference.operators.operator import Check, Operator, Shape
from litehrnet_stage2.reference.operators.resize import Resize
from litehrnet_stage2.reference.operators.silu import SIGMOID, SiLU

KINDS: dict[str, type[Operator]] = {kind.__name__.lower(): kind for kind in (Conv, SiLU, Add, Resize)}
"""By the name that a file has for them. Each converter has a table of these too, and refuses what it lacks."""

__all__ = ["KINDS", "SIGMOID", "Add", "Check", "Conv", "Operator", "Resize", "Shape", "SiLU"]
