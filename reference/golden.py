"""The golden evaluator: the integer function in integer arithmetic, numpy alone."""

from __future__ import annotations

import hashlib

import numpy as np

from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.quantization import Codes


def evaluate(function: IntegerFunction, *codes: Codes) -> dict[str, Codes]:
    """Run the integer function: the codes of each input, in order, to those of each output, by name.

    Shapes: int8, each `[N, ...]` with the shape of its tensor but for the batch.

    Raises:
        ValueError: the codes have a wrong shape or dtype.
    """
    function.check_inputs(*codes)
    images = [trace(function, *(c[i : i + 1] for c in codes)) for i in range(len(codes[0]))]
    return {name: np.concatenate([image[tensor] for image in images]) for name, tensor in function.outputs.items()}


def trace(function: IntegerFunction, *codes: Codes) -> dict[str, Codes]:
    """Every tensor of one evaluation, by name: what to compare, layer by layer, when a code differs.

    Shapes: int8, each `[N, ...]` with the shape of its tensor but for the batch.
    """
    tensors = dict(zip(function.inputs, codes, strict=True))
    quantization = function.quantization
    for node in function.nodes:
        tensors[node.name] = node.evaluate(
            [tensors[name] for name in node.inputs],
            [quantization[name] for name in node.inputs],
            quantization[node.name],
        )
    return tensors


def codes_sha256(*outputs: Codes) -> str:
    """SHA-256 of the bytes of each output in turn: what an app compares on a device."""
    digest = hashlib.sha256()
    for codes in outputs:
        digest.update(np.ascontiguousarray(codes).tobytes())
    return digest.hexdigest()
