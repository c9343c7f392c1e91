"""ExecuTorch with the Core ML delegate: the Neural Engine's form, for apps that already ship ExecuTorch."""

from __future__ import annotations

import hashlib
import json
import operator
import tempfile
import uuid
from collections import Counter
from pathlib import Path

import coremltools as ct
import torch
from executorch.backends.apple.coreml import executorchcoreml
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.exir import to_edge_transform_and_lower

from litehrnet_stage2.converters import mlpackage
from litehrnet_stage2.converters.coverage import Coverage, CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.to_coreml_ane import expected_coverage
from litehrnet_stage2.converters.upstream.executorch_1_5 import call_delegate, set_processed_bytes
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.neural_engine import NeuralEngineModule


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the inputs in float32, each of its tensor's shape, in; the outputs in float32 out.

    Raises:
        CoverageError: an operator is outside of the one delegate.
        ValueError: a scale is too small for float16.
    """
    examples = tuple(torch.zeros(function.tensors[name].shape) for name in function.inputs)
    specs = CoreMLBackend.generate_compile_specs(
        compute_unit=ct.ComputeUnit.ALL,
        minimum_deployment_target=ct.target[deployment.coreml_target],
        compute_precision=ct.precision.FLOAT16,
    )
    program = to_edge_transform_and_lower(
        torch.export.export(NeuralEngineModule(function).eval(), examples),
        partitioner=[CoreMLPartitioner(compile_specs=specs)],
    )
    outer = program.exported_program().graph_module
    delegates = [module for name, module in outer.named_children() if name.startswith("lowered_module")]
    calls = [node.target for node in outer.graph.nodes if node.op == "call_function"]
    outside = [target for target in calls if target not in (operator.getitem, call_delegate)]
    if outside or len(delegates) != 1:
        raise CoverageError(f"executorch-coreml: {len(delegates)} delegates, {outside} outside; due is one alone")
    (delegate,) = delegates
    with tempfile.TemporaryDirectory() as folder:
        package = unpack(delegate.processed_bytes, Path(folder))
        coverage = _coverage(package).check(expected_coverage(function), "executorch-coreml")
        set_processed_bytes(delegate, _repack(package))
    path.write_bytes(program.to_executorch().buffer)
    return coverage


def unpack(processed: bytes, folder: Path) -> Path:
    """Unpack a delegate's bytes into `folder`; the package that they hold."""
    executorchcoreml.unflatten_directory_contents(processed, str(folder))
    (package,) = folder.glob("*/*.mlpackage")
    return package


def _repack(package: Path) -> bytes:
    """A delegate's bytes again, without what only its profiler reads: half of them.

    The device keeps compiled models by their identifier. It is made of the content here, so that an equal
    program is compiled once and another never taken for it.
    """
    mlpackage.tidy(package)
    root = package.parent
    (root / "debug_info.json").unlink(missing_ok=True)
    content = b"".join(path.read_bytes() for path in sorted(package.rglob("*")) if path.is_file())
    card = root / "metadata.json"
    values = json.loads(card.read_text(encoding="utf-8"))
    values["identifier"] = f"executorch_{uuid.UUID(bytes=hashlib.sha256(content).digest()[:16])}"
    card.write_text(json.dumps(values), encoding="utf-8")
    processed: bytes = executorchcoreml.flatten_directory_contents(str(root))
    return processed


def _coverage(package: Path) -> Coverage:
    """Count the operators of the package inside the delegate."""
    program = ct.utils.load_spec(str(package)).mlProgram
    (function,) = program.functions.values()
    (block,) = function.block_specializations.values()
    counts = Counter(operation.type for operation in block.operations)
    boundary = {kind: counts.pop(kind, 0) for kind in ("quantize", "dequantize")}
    int8 = {"conv": counts.pop("conv", 0)}
    floating = {kind: count for kind, count in counts.items() if not kind.startswith("const") and kind != "cast"}
    return Coverage(int8=int8, floating=floating, boundary=boundary, partitions=1)
