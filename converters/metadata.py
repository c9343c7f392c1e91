"""What a Core ML package says of itself to whoever opens it in Xcode."""

from __future__ import annotations

from typing import Any

from litehrnet_stage2.reference.integer_function import INPUT, OUTPUTS

DESCRIPTIONS = {
    INPUT: "Features at 1/4 of the image's resolution, NCHW",
    OUTPUTS[0]: "The fused branch at 1/4 of the image's resolution, NCHW",
    OUTPUTS[1]: "The fused branch at 1/8 of the image's resolution, NCHW",
}


def describe(model: Any, what: str) -> None:
    """Fill in the descriptions and licence of a `coremltools` model, in place."""
    model.short_description = f"Stage2 of a Lite-HRNet-18 variant: {what}"
    model.author = "litehrnet-stage2"
    model.license = "Apache-2.0"
    for name in (INPUT,):
        model.input_description[name] = DESCRIPTIONS[name]
    for name in OUTPUTS:
        model.output_description[name] = DESCRIPTIONS[name]
