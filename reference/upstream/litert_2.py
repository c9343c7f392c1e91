"""Private names of LiteRT 2, and what they tell: whether XNNPACK takes a `.tflite` whole.

Standard library only: this file is copied to devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PRIVATE = {"ai_edge_litert.interpreter.Interpreter": ("_get_ops_details",)}

ADVICE = (
    "LiteRT's own int8 kernels round twice, which is another function: use the package ai-edge-litert 2, whose "
    "interpreter applies XNNPACK by default"
)


def operators_of(interpreter: Any) -> list[dict[str, Any]]:
    """The operators of an interpreter's file, then the delegates: names, and numbers and types of tensors."""
    operators: list[dict[str, Any]] = interpreter._get_ops_details()
    return operators


def undelegated(interpreter: Any, outputs: Sequence[int]) -> str | None:
    """Say what XNNPACK left to LiteRT's own kernels, or None if it runs everything in one delegate.

    Args:
        interpreter: with tensors allocated.
        outputs: numbers of the output tensors.
    """
    operators = operators_of(interpreter)
    delegates = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    if len(delegates) != 1:
        return f"XNNPACK runs it in {len(delegates)} delegates instead of one"
    written = {int(tensor) for op in operators if op["op_name"] != "DELEGATE" for tensor in op["outputs"]}
    (delegate,) = delegates
    before = written & {int(tensor) for tensor in delegate["inputs"]}
    after = {int(tensor) for tensor in delegate["outputs"]} ^ set(outputs)
    return "some operators are outside of XNNPACK's delegate" if before or after else None
