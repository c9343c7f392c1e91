"""ExecuTorch: the integer function as one XNNPACK delegate in a `.pte`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from executorch.exir import EdgeProgramManager

from litehrnet_stage2.converters import xnnpack_lowering
from litehrnet_stage2.converters.coverage import Coverage, OperatorNames, always, counted
from litehrnet_stage2.converters.side_by_side import side_by_side
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.xnnpack_module import XnnpackModule
from litehrnet_stage2.converters.xnnpack_payload import operators
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import Lowerings
from litehrnet_stage2.reference.qdq_module import CLAMPS, FloatQDQModule, concatenations

_KINDS = {
    "XNNConv2d": "convolution",
    "XNNDepthwiseConv2d": "convolution",
    "XNNSigmoid": "sigmoid",
    "XNNMultiply": "mul",
    "XNNAdd": "add",
    "XNNStaticResizeBilinear2D": "upsample_bilinear2d",
}
"""XNNPACK's operators by the names that the exported graph has for them."""


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the inputs in float32, each of its tensor's shape, in; the outputs in float32 out.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
        LoweringError: XNNPACK has no exact form of an operator.
    """
    examples = [torch.zeros(function.tensors[name].shape) for name in function.inputs]
    program = xnnpack_lowering.lower(FloatQDQModule(XnnpackModule(function)), *examples)
    coverage = coverage_of(program).check(expected_coverage(function), "executorch")
    path.write_bytes(xnnpack_lowering.serialize(program, *examples))
    return coverage


def _table(function: IntegerFunction, node: op.Table) -> tuple[str, ...]:
    if node.function in CLAMPS:
        return ("convolution",)
    return ({"sigmoid": "sigmoid", "tanh": "XNNTanh", "hardswish": "XNNHardswish"}[node.function],)


def _concat(function: IntegerFunction, node: op.Concat) -> tuple[str, ...]:
    return tuple(f"XNNConcatenate{size}" for size in concatenations(len(node.inputs)))


def _conv(function: IntegerFunction, node: op.Conv) -> tuple[str, ...]:
    top, left, bottom, right = side_by_side(node, function.tensors[node.input].shape).conv.padding
    return ("convolution",) if (top, left) == (bottom, right) else ("XNNStaticConstantPad", "convolution")


INT8: Lowerings[OperatorNames] = {
    op.Conv: _conv,
    op.SiLU: always("sigmoid", "mul"),
    op.Add: always("add"),
    op.Resize: always("upsample_bilinear2d"),
    op.Table: _table,
    op.Mul: always("mul"),
    op.Concat: _concat,
    op.Nearest: lambda function, node: (f"XNNConcatenate{node.factor}",) * 2,
    op.MaxPool: always("XNNMaxPooling2d"),
    op.Mean: always("XNNGlobalAvgPooling2d"),
}
"""By kind of node: XNNPACK's operators, all of them in int8."""


def expected_coverage(function: IntegerFunction) -> Coverage:
    """One delegate, every operator in int8, a quantise for each input and a dequantise for each output."""
    return Coverage(
        int8=counted(function, INT8),
        floating={},
        boundary={"quantize": len(function.inputs), "dequantize": len(function.outputs)},
        partitions=1,
    )


def coverage_of(program: EdgeProgramManager) -> Coverage:
    """Count operators inside the delegates by what they read and write; what is outside counts as float."""
    int8: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    boundary: Counter[str] = Counter()
    outer = program.exported_program().graph_module
    delegates = [module for name, module in outer.named_children() if name.startswith("lowered_module")]
    calls = [node for node in outer.graph.nodes if node.op == "call_function"]
    floating.update(_name(n) for n in calls if _name(n) not in ("getitem", "executorch_call_delegate"))
    for operator in (found for delegate in delegates for found in operators(delegate.processed_bytes)):
        kind = _KINDS.get(operator.kind, operator.kind)
        match operator.kind, operator.reads_codes, operator.writes_codes:
            case "XNNStaticTranspose" | "XNNStaticReshape", _, _:
                pass  # moves values, computes nothing
            case "XNNConvert", False, True:
                boundary["quantize"] += 1
            case "XNNConvert", True, False:
                boundary["dequantize"] += 1
            case _, True, True:
                int8[kind] += 1
            case _:
                floating[kind] += 1
    return Coverage(int8=dict(int8), floating=dict(floating), boundary=dict(boundary), partitions=len(delegates))


def _name(node: torch.fx.Node) -> str:
    """`aten.convolution.default` -> `convolution`."""
    name = getattr(node.target, "__name__", type(node.target).__name__)
    return name.removeprefix("aten.").removeprefix("quantized_decomposed.").split(".")[0]
