"""Private names of coremltools 9."""

from __future__ import annotations

from typing import Any

PRIVATE = {"coremltools.models.MLModel": ("_mil_program",)}


def main_function(model: Any) -> Any:
    """The MIL function of a converted model, whose `operations` and `outputs` can be walked."""
    return model._mil_program.functions["main"]
