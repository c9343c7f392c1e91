"""Writes into a Core ML package what Xcode shows of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from litehrnet_stage2.reference.integer_function import IntegerFunction


def describe(model: Any, what: str, function: IntegerFunction, images: Collection[str] = ()) -> None:
    """Fill in the descriptions and licence of a `coremltools` model, in place; `images` are inputs that are images."""
    model.short_description = f"{function.name}: {what}"
    model.author = "litehrnet-stage2"
    model.license = "Apache-2.0"
    borders = {name: name for name in function.inputs} | dict(function.outputs)
    for name, tensor in borders.items():
        q = function.quantization[tensor]
        described = f"NCHW; code = round(value / {q.scale:.6g}) + {q.zero_point}"
        if name in images:
            described = f"an image; code = value - {-q.zero_point}"
        (model.input_description if name in function.inputs else model.output_description)[name] = described
