"""ExecuTorch with the Core ML delegate: the Neural Engine's form, for apps that already ship ExecuTorch."""

from __future__ import annotations

import operator
import tempfile
from collections import Counter
from pathlib import Path

import coremltools as ct
import torch
from executorch.backends.apple.coreml import executorchcoreml
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch._higher_order_ops.executorch_call_delegate import executorch_call_delegate

from litehrnet_stage2.converters.coreml_ane import expected_coverage
from litehrnet_stage2.converters.coverage import Coverage, CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.neural_engine import NeuralEngineStage2


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: float32 `features [1, in_channels, height, width]` in, float32 `y1`, `y2` out.

    Raises:
        CoverageError: an operator is outside of the one delegate.
        ValueError: a scale is too small for float16.
    """
    features = torch.zeros(1, function.config.in_channels, deployment.height, deployment.width)
    specs = CoreMLBackend.generate_compile_specs(
        compute_unit=ct.ComputeUnit.ALL,
        minimum_deployment_target=ct.target[deployment.coreml_target],
        compute_precision=ct.precision.FLOAT16,
    )
    program = to_edge_transform_and_lower(
        torch.export.export(NeuralEngineStage2(function).eval(), (features,)),
        partitioner=[CoreMLPartitioner(compile_specs=specs)],
    )
    outer = program.exported_program().graph_module
    delegates = [module for name, module in outer.named_children() if name.startswith("lowered_module")]
    calls = [node.target for node in outer.graph.nodes if node.op == "call_function"]
    outside = [target for target in calls if target not in (operator.getitem, executorch_call_delegate)]
    if outside or len(delegates) != 1:
        raise CoverageError(f"executorch-coreml: {len(delegates)} delegates, {outside} outside; due is one alone")
    coverage = _coverage(delegates[0].processed_bytes).check(expected_coverage(function), "executorch-coreml")
    path.write_bytes(program.to_executorch().buffer)
    return coverage


def _coverage(processed: bytes) -> Coverage:
    """Count the operators of the package inside the delegate."""
    with tempfile.TemporaryDirectory() as folder:
        if not executorchcoreml.unflatten_directory_contents(processed, folder):
            raise CoverageError("executorch-coreml: the delegate's package cannot be unpacked")
        (package,) = {path.parent for path in Path(folder).rglob("Manifest.json")}
        program = ct.utils.load_spec(str(package)).mlProgram
    (function,) = program.functions.values()
    (block,) = function.block_specializations.values()
    counts = Counter(operation.type for operation in block.operations)
    boundary = {kind: counts.pop(kind, 0) for kind in ("quantize", "dequantize")}
    int8 = {"conv": counts.pop("conv", 0)}
    floating = {kind: count for kind, count in counts.items() if not kind.startswith("const") and kind != "cast"}
    return Coverage(int8=int8, floating=floating, boundary=boundary, partitions=1)
