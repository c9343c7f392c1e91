"""Core ML, exact, with an image for each input of pixels: the program of `to_coreml`, fed a camera's pixel buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np

from litehrnet_stage2.converters import mlpackage, to_coreml
from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import LoweringError

COLOURS = {1: ct.colorlayout.GRAYSCALE, 3: ct.colorlayout.RGB}
"""By number of channels."""


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write the package `path`: an image for each input of pixels, float32 for the others, in; float32 outputs out.

    Core ML gives the program an image's bytes as whole numbers, whose codes are 128 lower: nothing is rounded.

    Raises:
        CoverageError: an operator was lost, added or moved off its int8 operands.
        LoweringError: no input is of pixels, or one has other than 1 or 3 channels; there is no exact form of an
            operator, or a sum that float32 cannot hold.
    """
    images = images_of(function)
    inputs = [_input(function, name, images) for name in function.inputs]
    model = to_coreml.lower(to_coreml.build(function, images), inputs)
    coverage = to_coreml.coverage_of(model).check(to_coreml.expected_coverage(function), "coreml-image")
    mlpackage.save(model, path, f"{to_coreml.DESCRIPTION}; pixels are images", function, images)
    return coverage


def images_of(function: IntegerFunction) -> frozenset[str]:
    """The inputs that are images: those of pixels.

    Raises:
        LoweringError: there is none, or one has other than 1 or 3 channels.
    """
    inputs, _ = border_specs(function)
    images = [spec for spec in inputs if spec.kind == "pixels"]
    if not images:
        names = ", ".join(f"`{spec.name}`" for spec in inputs)
        raise LoweringError(
            f"{names} takes real values, and the target coreml-image needs an input of pixels: declare one "
            "(`--input NAME=1xCxHxW:pixels`), or use the target coreml"
        )
    for spec in images:
        if (channels := spec.shape[1]) not in COLOURS:
            raise LoweringError(
                f"`{spec.name}` has {channels} channels, and an image has 3 (RGB) or 1 (grey): "
                "use the target coreml instead of coreml-image"
            )
    return frozenset(spec.name for spec in images)


def _input(function: IntegerFunction, name: str, images: frozenset[str]) -> Any:
    shape = function.tensors[name].shape
    if name in images:
        return ct.ImageType(name, shape, color_layout=COLOURS[shape[1]])
    return ct.TensorType(name, shape, dtype=np.float32)
