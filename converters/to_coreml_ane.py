"""Core ML for the Neural Engine: float16 compute, int8 where convolutions read, SiLU as one operator.

Another function than the integer one (see `reference/neural_engine.py`), for where speed on Apple's
accelerator is worth more than equality of codes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch

from litehrnet_stage2.converters import mlpackage
from litehrnet_stage2.converters.coverage import Coverage, node_counts
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.upstream.coremltools_9_0 import main_function
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.neural_engine import NeuralEngineModule, read_by_convolutions, saturates
from litehrnet_stage2.reference.operators import Add, Conv, Resize, SiLU


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write the package `path`: the inputs in float16, each of its tensor's shape, in; the outputs in float16 out.

    Raises:
        CoverageError: an activation was taken apart, or quantise steps are left that serve no convolution.
        LoweringError: the function has an operator that this form does not know.
        ValueError: a scale is too small for float16.
    """
    shapes = {name: function.tensors[name].shape for name in function.inputs}
    examples = tuple(torch.zeros(shape) for shape in shapes.values())
    # coremltools 9 reads the core ATen dialect only.
    exported = torch.export.export(NeuralEngineModule(function).eval(), examples).run_decompositions({})
    model = ct.convert(
        exported,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target[deployment.coreml_target],
        compute_precision=ct.precision.FLOAT16,
        inputs=[ct.TensorType(name, shape, dtype=np.float16) for name, shape in shapes.items()],
        outputs=[ct.TensorType(name, dtype=np.float16) for name in function.outputs],
        skip_model_load=True,
    )
    coverage = count(model).check(expected_coverage(function), "coreml-ane")
    mlpackage.save(model, path, "the Neural Engine's float16 form; not the integer function", function)
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """Convolutions in int8, one quantise and dequantise for each tensor that one reads, the rest in float16."""
    nodes = node_counts(function)
    saturating = sum(saturates(function, node) for node in function.nodes)
    rounded = len(read_by_convolutions(function))
    return Coverage(
        int8={"conv": nodes[Conv]},
        floating={"silu": nodes[SiLU], "add": nodes[Add], "upsample_bilinear": nodes[Resize], "relu": saturating},
        boundary={"quantize": rounded, "dequantize": rounded},
        partitions=1,
    )


def count(model: Any) -> Coverage:
    """Count a converted program's operators; a convolution is in int8 with int8 on both sides."""
    int8: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    boundary: Counter[str] = Counter()
    for operation in main_function(model).operations:
        kind = operation.op_type
        if kind in ("quantize", "dequantize"):
            boundary[kind] += 1
        elif kind == "conv" and _feeds_int8(operation.x) and _feeds_int8(operation.weight):
            int8[kind] += 1
        elif not kind.startswith("const"):
            floating[kind] += 1
    return Coverage(int8=dict(int8), floating=dict(floating), boundary=dict(boundary), partitions=1)


def _feeds_int8(tensor: Any) -> bool:
    return tensor.op is not None and (tensor.op.op_type == "dequantize" or tensor.op.op_type.startswith("constexpr_"))
