"""Core ML, exact: the integer function in integer-valued float32, as an iOS 17 ML program.

The usual dequantise-convolve-quantise repeats PyTorch's float simulation, near-ties included. Here every
tensor holds codes minus zero point as whole float32 numbers (scale 1), so each sum is exact below 2^24,
which freezing checked; then comes the one float32 multiply that every other runtime does, and a quantise
of scale 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Function, Program, types

from litehrnet_stage2.converters import mlpackage
from litehrnet_stage2.converters.coverage import Coverage, OperatorNames, always, counted
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.upstream.coremltools_9_0 import main_function
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.lowering import LoweringError, Lowerings, check_lowered
from litehrnet_stage2.reference.quantization import PIXELS

Var: TypeAlias = Any  # a MIL variable; coremltools ships no types

DESCRIPTION = "the integer function, in whole float32 numbers; codes equal those of every other runtime"
ONE = np.float32(1)
LARGEST_SUM = 2**24
"""What float32 still counts by ones."""

PASSES = (
    "common::dead_code_elimination",
    "common::const_deduplication",
    "common::topological_reorder",
)
"""What may be done to the program: tidying. Passes that move scales would change the function."""


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write the package `path`: the inputs in float32, each of its tensor's shape, in; the outputs in float32 out.

    Raises:
        CoverageError: an operator was lost, added or moved off its int8 operands.
        LoweringError: there is no exact form of an operator, or a sum that float32 cannot hold.
    """
    model = lower(build(function))
    coverage = coverage_of(model).check(expected_coverage(function), "coreml")
    mlpackage.save(model, path, DESCRIPTION, function)
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """Every operator on whole numbers between a dequantise and a quantise, every convolution with int8 weights."""
    return Coverage(
        int8=counted(function, OPERATORS),
        floating={},
        boundary={"quantize": len(function.inputs), "dequantize": len(function.outputs)},
        partitions=1,
    )


def lower(program: Program, inputs: list[Any] | None = None) -> Any:
    """The `coremltools` model of a program, only tidied; `inputs` are their types, where not all are of tensors."""
    return ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        inputs=inputs,
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        pass_pipeline=ct.PassPipeline(PASSES, "exact"),
        skip_model_load=True,
    )


def build(function: IntegerFunction, images: Collection[str] = ()) -> Program:
    """The MIL program, before any pass; inputs that are `images` hold the pixels' own values, 128 above their codes."""
    check_lowered(function, LOWER, "Core ML")
    borders = {name: mb.TensorSpec(function.tensors[name].shape, dtype=types.fp32) for name in function.inputs}
    with Function(borders, ct.target.iOS17) as main:
        body = _Body(function)
        for name in function.inputs:
            q = Quantization(ONE, PIXELS.zero_point) if name in images else function.quantization[name]
            body.codes[name] = _quantize(main.inputs[name], q, name)
        for node in function.nodes:
            value = LOWER[type(node)](body, node)
            zero_point = function.quantization[node.name].zero_point
            body.codes[node.name] = _quantize(value, Quantization(ONE, zero_point), node.name)
        outputs = [
            mb.dequantize(
                input=body.codes[tensor],
                scale=function.quantization[tensor].scale,
                zero_point=np.int8(function.quantization[tensor].zero_point),
                name=output,
            )
            for output, tensor in function.outputs.items()
        ]
        main.set_outputs(outputs)
    program = Program()
    program.add_function("main", main)
    return program


class _Body:
    """The codes of every tensor so far."""

    def __init__(self, function: IntegerFunction) -> None:
        self.function = function
        self.codes: dict[str, Var] = {}

    def read(self, tensor: str) -> Var:
        """Codes minus zero point, as whole float32 numbers."""
        zero_point = np.int8(self.function.quantization[tensor].zero_point)
        return mb.dequantize(input=self.codes[tensor], scale=ONE, zero_point=zero_point)


def _conv(body: _Body, node: op.Conv) -> Var:
    reach = node.reach(body.function.quantization[node.input].zero_point)
    if reach >= LARGEST_SUM:
        raise LoweringError(
            f"a sum in `{node.name}` can reach {reach}, past the 2^24 that Core ML's float32 counts by ones: "
            "leave the target coreml out, or use fewer channels"
        )
    weight = mb.constexpr_affine_dequantize(
        quantized_data=node.weight, zero_point=np.int8(0), scale=ONE, axis=np.int32(0)
    )
    top, left, bottom, right = node.padding
    acc = mb.conv(
        x=body.read(node.input),
        weight=weight,
        bias=node.bias.astype(np.float32),
        strides=list(node.stride),
        pad_type="custom",
        pad=[top, bottom, left, right],
        dilations=list(node.dilation),
        groups=node.groups,
        name=f"{node.name}.accumulator",
    )
    return mb.mul(x=acc, y=body.function.multiplier(node).reshape(1, -1, 1, 1))


def _silu(body: _Body, node: op.SiLU) -> Var:
    inp, out = body.function.quantization[node.input], body.function.quantization[node.name]
    x = body.read(node.input)
    sigmoid = mb.sigmoid(x=mb.mul(x=x, y=inp.scale))
    gate = _quantize(sigmoid, op.SIGMOID, f"{node.name}.sigmoid")
    gate = mb.dequantize(input=gate, scale=ONE, zero_point=np.int8(op.SIGMOID.zero_point))
    return mb.mul(x=mb.mul(x=x, y=gate), y=inp.scale * op.SIGMOID.scale / out.scale)


def _add(body: _Body, node: op.Add) -> Var:
    out = body.function.quantization[node.name].scale
    terms = [mb.mul(x=body.read(name), y=body.function.quantization[name].scale / out) for name in node.inputs]
    return mb.add(x=terms[0], y=terms[1])


def _resize(body: _Body, node: op.Resize) -> Var:
    """The values lie on a grid: what is added breaks their ties upwards, and moves nothing else."""
    y = mb.upsample_bilinear(
        x=body.read(node.input),
        scale_factor_height=float(node.factor),
        scale_factor_width=float(node.factor),
        align_corners=False,
    )
    return mb.add(x=y, y=node.tie_breaking_offset)


def _table(body: _Body, node: op.Table) -> Var:
    """The float function, in steps of the result: no entry lies near a tie."""
    inp, out = body.function.quantization[node.input], body.function.quantization[node.name]
    x = mb.mul(x=body.read(node.input), y=inp.scale)
    match node.function:
        case "relu":
            x = mb.relu(x=x)
        case "relu6":
            x = mb.relu6(x=x)
        case "sigmoid":
            x = mb.sigmoid(x=x)
        case "tanh":
            x = mb.tanh(x=x)
        case "hardswish":
            x = mb.mul(x=x, y=mb.sigmoid_hard(x=x, alpha=np.float32(1 / 6), beta=np.float32(0.5)))
    return mb.mul(x=x, y=ONE / out.scale)


def _mul(body: _Body, node: op.Mul) -> Var:
    qa, qb = (body.function.quantization[name] for name in node.inputs)
    product = mb.mul(x=body.read(node.inputs[0]), y=body.read(node.inputs[1]))
    return mb.mul(x=product, y=node.multiplier(qa, qb, body.function.quantization[node.name]))


def _concat(body: _Body, node: op.Concat) -> Var:
    return mb.concat(values=[body.read(name) for name in node.inputs], axis=1)


def _nearest(body: _Body, node: op.Nearest) -> Var:
    factor = float(node.factor)
    return mb.upsample_nearest_neighbor(x=body.read(node.input), scale_factor_height=factor, scale_factor_width=factor)


def _max_pool(body: _Body, node: op.MaxPool) -> Var:
    top, left, bottom, right = node.padding
    return mb.max_pool(
        x=body.read(node.input),
        kernel_sizes=list(node.kernel),
        strides=list(node.stride),
        pad_type="custom",
        pad=[top, bottom, left, right],
    )


def _mean(body: _Body, node: op.Mean) -> Var:
    """A sum of whole numbers, exact below 2^24, then one multiply."""
    total = mb.reduce_sum(x=body.read(node.input), axes=[2, 3], keep_dims=True)
    quantization = body.function.quantization
    return mb.mul(x=total, y=node.multiplier(quantization[node.input], quantization[node.name]))


LOWER: Lowerings[Callable[[_Body, Any], Var]] = {
    op.Conv: _conv,
    op.SiLU: _silu,
    op.Add: _add,
    op.Resize: _resize,
    op.Table: _table,
    op.Mul: _mul,
    op.Concat: _concat,
    op.Nearest: _nearest,
    op.MaxPool: _max_pool,
    op.Mean: _mean,
}
"""By kind of node: its result in steps of its scale, before zero point and rounding."""


def _table_operators(function: IntegerFunction, node: op.Table) -> tuple[str, ...]:
    name = {"identity": (), "hardswish": ("sigmoid_hard", "mul")}.get(node.function, (node.function,))
    return ("mul", *name, "mul")


OPERATORS: Lowerings[OperatorNames] = {
    op.Conv: always("conv", "mul"),
    op.SiLU: always("mul", "sigmoid", "mul", "mul"),
    op.Add: always("mul", "mul", "add"),
    op.Resize: always("upsample_bilinear", "add"),
    op.Table: _table_operators,
    op.Mul: always("mul", "mul"),
    op.Concat: always("concat"),
    op.Nearest: always("upsample_nearest_neighbor"),
    op.MaxPool: always("max_pool"),
    op.Mean: always("reduce_sum", "mul"),
}
"""By kind of node: what its program has, all on whole numbers."""

ON_WHOLE_NUMBERS = frozenset(
    (
        *("sigmoid", "mul", "add", "upsample_bilinear", "relu", "relu6", "tanh", "sigmoid_hard"),
        *("concat", "upsample_nearest_neighbor", "max_pool", "reduce_sum"),
    )
)


def _quantize(x: Var, q: Quantization, name: str) -> Var:
    return mb.quantize(
        input=x, scale=q.scale, zero_point=np.int8(q.zero_point), output_dtype="int8", name=f"{name}.codes"
    )


def coverage_of(model: Any) -> Coverage:
    """Count the converted program's operators; a convolution counts only with int8 on both sides."""
    int8: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    boundary: Counter[str] = Counter()
    main = main_function(model)
    for operation in main.operations:
        kind = operation.op_type
        if kind == "quantize":
            boundary[kind] += operation.input.op is None
        elif kind == "dequantize":
            boundary[kind] += operation.outputs[0] in main.outputs
        elif kind == "conv":
            feeds = (operation.x.op.op_type, operation.weight.op.op_type)
            (int8 if feeds == ("dequantize", "constexpr_affine_dequantize") else floating)[kind] += 1
        elif kind in ON_WHOLE_NUMBERS:
            int8[kind] += 1
        elif not kind.startswith("const"):
            floating[kind] += 1
    return Coverage(int8=dict(int8), floating=dict(floating), boundary=dict(boundary), partitions=1)
