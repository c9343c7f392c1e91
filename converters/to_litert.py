"""LiteRT: the integer function as a `.tflite` that XNNPACK takes whole; every tensor is channels last."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from litehrnet_stage2.converters.coverage import Coverage, CoverageError, OperatorNames, always, counted
from litehrnet_stage2.converters.litert_lowering import CODES_TABLES, FLOAT_TABLES, Graph, joins, pool_joins
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import Lowerings
from litehrnet_stage2.reference.upstream.litert_2 import operators_of, undelegated


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write `path`: the inputs in float32, channels last, in; the outputs likewise out.

    Raises:
        CoverageError: an operator is not in the one delegate, or not in int8.
        LoweringError: LiteRT has no exact form of an operator.
    """
    content = build(function)
    coverage = coverage_of(content).check(expected_coverage(function), "litert")
    path.write_bytes(content)
    return coverage


OPERATORS: Lowerings[OperatorNames] = {
    op.Conv: lambda function, node: ("DEPTHWISE_CONV_2D" if node.depthwise else "CONV_2D",),
    op.SiLU: always("LOGISTIC", "MUL"),
    op.Add: always("ADD"),
    op.Resize: always("RESIZE_BILINEAR"),
    op.Table: lambda function, node: _table_operators(node),
    op.Mul: always("MUL"),
    op.Concat: lambda function, node: ("CONCATENATION",) * joins(len(node.inputs)),
    op.Nearest: lambda function, node: ("CONCATENATION",) * (2 * joins(node.factor)),
    op.MaxPool: lambda function, node: ("MAX_POOL_2D", *("CONCATENATION",) * pool_joins(function, node)),
    op.Mean: always("MEAN"),
}
"""By kind of node: the schema's operators in int8."""


def _table_operators(node: op.Table) -> tuple[str, ...]:
    if node.function in FLOAT_TABLES:
        return ()
    return (CODES_TABLES.get(node.function, "DEPTHWISE_CONV_2D"),)


def expected_coverage(function: IntegerFunction) -> Coverage:
    """One delegate, a quantise for each input and a dequantise for each output, and every operator in int8.

    Only a table that XNNPACK has in float alone is in float, between a dequantise and a quantise of its own.
    """
    tables = [node.function for node in function.nodes if isinstance(node, op.Table) and node.function in FLOAT_TABLES]
    return Coverage(
        int8=counted(function, OPERATORS),
        floating=Counter(FLOAT_TABLES[table] for table in tables),
        boundary={
            "QUANTIZE": len(function.inputs) + len(tables),
            "DEQUANTIZE": len(function.outputs) + len(tables),
        },
        partitions=1,
    )


def build(function: IntegerFunction) -> bytes:
    """The file with float32 at its border; equal functions give equal bytes."""
    graph = Graph(function)
    inputs = {name: graph.file.tensor(name, graph.shape(name), "float32") for name in function.inputs}
    for name, given in inputs.items():
        graph.file.operator("QUANTIZE", [given], graph.write(name, f"{name}/codes"), schema.QuantizeOptionsT())
    graph.body()
    outputs = {}
    for name, tensor in function.outputs.items():
        outputs[name] = graph.file.tensor(name, graph.shape(tensor), "float32")
        graph.file.operator("DEQUANTIZE", [graph.codes[tensor]], outputs[name], schema.DequantizeOptionsT())
    return graph.file.serialize(function.name, inputs, outputs)


def build_codes(function: IntegerFunction) -> bytes:
    """The file with int8 codes at its border: nothing is quantised or dequantised there."""
    names = {tensor: name for name, tensor in function.outputs.items() if tensor not in function.inputs}
    graph = Graph(function, names)
    inputs = {name: graph.write(name, name) for name in function.inputs}
    graph.body()
    outputs = {
        name: graph.codes[tensor] if names.get(tensor) == name else graph.copied(tensor, name)
        for name, tensor in function.outputs.items()
    }
    return graph.file.serialize(function.name, inputs, outputs)


def coverage_of(content: bytes) -> Coverage:
    """Open the file, run it once, and count its operators by what they read and write.

    Raises:
        CoverageError: XNNPACK does not take all of it.
    """
    opened = interpreter.Interpreter(model_content=content)
    opened.allocate_tensors()
    opened.invoke()
    operators = operators_of(opened)
    int8: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    boundary: Counter[str] = Counter()
    for operator in operators:
        kind = operator["op_name"]
        match kind, operator["operand_types"][0] is np.int8, operator["result_types"][0] is np.int8:
            case "DELEGATE" | "PAD" | "RESHAPE", _, _:
                pass  # moves codes, computes nothing
            case "QUANTIZE", False, True:
                boundary[kind] += 1
            case "DEQUANTIZE", True, False:
                boundary[kind] += 1
            case _, True, True:
                int8[kind] += 1
            case _:
                floating[kind] += 1
    outputs = [output["index"] for output in opened.get_output_details()]
    if left := undelegated(opened, outputs):
        raise CoverageError(f"litert: {left}; the artifact was not written")
    return Coverage(int8=dict(int8), floating=dict(floating), boundary=dict(boundary), partitions=1)
