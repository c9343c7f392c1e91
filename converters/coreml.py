"""Core ML, exact: the integer function in integer-valued float32, as an iOS 17 ML program.

The usual dequantise-convolve-quantise repeats PyTorch's float simulation, near-ties included. Here every
tensor holds codes minus zero point as whole float32 numbers (scale 1), so each sum is exact below 2^24,
which freezing checked; then comes the one float32 multiply that every other runtime does, and a quantise
of scale 1.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Program, types

from litehrnet_stage2.converters import mlpackage
from litehrnet_stage2.converters.coverage import Coverage, node_counts
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.integer_function import (
    INPUT,
    OUTPUTS,
    SIGMOID_SCALE,
    SIGMOID_ZERO_POINT,
    Add,
    Conv,
    IntegerFunction,
    Quantization,
    Resize,
    SiLU,
)

Var: TypeAlias = Any  # a MIL variable; coremltools ships no types

ONE = np.float32(1)
TIE_UP = np.float32(1 / 64)  # the resize's values lie on a grid of 1/16: breaks its ties upwards, moves nothing else

PASSES = (
    "common::dead_code_elimination",
    "common::const_deduplication",
    "common::topological_reorder",
)
"""What may be done to the program: tidying. Passes that move scales would change the function."""


def convert(function: IntegerFunction, path: Path, deployment: Deployment) -> Coverage:
    """Write the package `path`: float32 `features [1, in_channels, height, width]` in, float32 `y1`, `y2` out.

    Raises:
        CoverageError: an operator was lost, added or moved off its int8 operands.
    """
    model = ct.convert(
        build(function, height=deployment.height, width=deployment.width),
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        pass_pipeline=ct.PassPipeline(PASSES, "exact"),
        skip_model_load=True,
    )
    coverage = _coverage(model).check(expected_coverage(function), "coreml")
    what = "the integer function, in whole float32 numbers; codes equal those of every other runtime"
    mlpackage.save(model, path, what)
    return coverage


def expected_coverage(function: IntegerFunction) -> Coverage:
    """Every operator on whole numbers between a dequantise and a quantise, every convolution with int8 weights."""
    count = node_counts(function)
    return Coverage(
        int8={
            "conv": count[Conv],
            "sigmoid": count[SiLU],
            "mul": count[Conv] + 3 * count[SiLU] + 2 * count[Add],
            "add": count[Add] + count[Resize],
            "upsample_bilinear": count[Resize],
        },
        floating={},
        boundary={"quantize": 1, "dequantize": 2},
        partitions=1,
    )


def build(function: IntegerFunction, *, height: int, width: int) -> Program:
    """The MIL program, before any pass."""
    shape = (1, function.config.in_channels, height, width)

    @mb.program(input_specs=[mb.TensorSpec(shape, dtype=types.fp32)], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator]
    def stage2(features: Var) -> Any:
        body = _Body(function)
        body.codes[INPUT] = _quantize(features, function.input_quantization, INPUT)
        for node in function.nodes:
            body.lower(node)
        return tuple(
            mb.dequantize(
                input=body.codes[tensor],
                scale=function.quantization[tensor].scale,
                zero_point=np.int8(function.quantization[tensor].zero_point),
                name=output,
            )
            for output, tensor in zip(OUTPUTS, function.outputs, strict=True)
        )

    return stage2


class _Body:
    """The codes of every tensor so far."""

    def __init__(self, function: IntegerFunction) -> None:
        self.function = function
        self.codes: dict[str, Var] = {}

    def lower(self, node: Conv | SiLU | Add | Resize) -> None:
        """Append one node."""
        match node:
            case Conv():
                value = self._conv(node)
            case SiLU():
                value = self._silu(node)
            case Add():
                value = self._add(node)
            case Resize():
                y = mb.upsample_bilinear(
                    x=self.read(node.input),
                    scale_factor_height=2.0,
                    scale_factor_width=2.0,
                    align_corners=False,
                )
                value = mb.add(x=y, y=TIE_UP)
        zero_point = self.function.quantization[node.name].zero_point
        self.codes[node.name] = _quantize(value, Quantization(ONE, zero_point), node.name)

    def read(self, tensor: str) -> Var:
        """Codes minus zero point, as whole float32 numbers."""
        zero_point = np.int8(self.function.quantization[tensor].zero_point)
        return mb.dequantize(input=self.codes[tensor], scale=ONE, zero_point=zero_point)

    def _conv(self, node: Conv) -> Var:
        weight = mb.constexpr_affine_dequantize(
            quantized_data=node.weight, zero_point=np.int8(0), scale=ONE, axis=np.int32(0)
        )
        acc = mb.conv(
            x=self.read(node.input),
            weight=weight,
            bias=node.bias.astype(np.float32),
            strides=[node.stride] * 2,
            pad_type="custom",
            pad=[node.padding] * 4,
            groups=node.groups,
            name=f"{node.name}.accumulator",
        )
        return mb.mul(x=acc, y=self.function.multiplier(node).reshape(1, -1, 1, 1))

    def _silu(self, node: SiLU) -> Var:
        inp, out = self.function.quantization[node.input], self.function.quantization[node.name]
        x = self.read(node.input)
        sigmoid = mb.sigmoid(x=mb.mul(x=x, y=inp.scale))
        gate = _quantize(sigmoid, Quantization(SIGMOID_SCALE, SIGMOID_ZERO_POINT), f"{node.name}.sigmoid")
        gate = mb.dequantize(input=gate, scale=ONE, zero_point=np.int8(SIGMOID_ZERO_POINT))
        return mb.mul(x=mb.mul(x=x, y=gate), y=inp.scale * SIGMOID_SCALE / out.scale)

    def _add(self, node: Add) -> Var:
        out = self.function.quantization[node.name].scale
        terms = [mb.mul(x=self.read(name), y=self.function.quantization[name].scale / out) for name in node.inputs]
        return mb.add(x=terms[0], y=terms[1])


def _quantize(x: Var, q: Quantization, name: str) -> Var:
    return mb.quantize(
        input=x, scale=q.scale, zero_point=np.int8(q.zero_point), output_dtype="int8", name=f"{name}.codes"
    )


def _coverage(model: Any) -> Coverage:
    """Count the converted program's operators; a convolution counts only with int8 on both sides."""
    int8: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    boundary: Counter[str] = Counter()
    main = model._mil_program.functions["main"]
    for operation in main.operations:
        kind = operation.op_type
        if kind == "quantize":
            boundary[kind] += operation.input.op is None
        elif kind == "dequantize":
            boundary[kind] += operation.outputs[0] in main.outputs
        elif kind == "conv":
            feeds = (operation.x.op.op_type, operation.weight.op.op_type)
            (int8 if feeds == ("dequantize", "constexpr_affine_dequantize") else floating)[kind] += 1
        elif kind in ("sigmoid", "mul", "add", "upsample_bilinear"):
            int8[kind] += 1
        elif not kind.startswith("const"):
            floating[kind] += 1
    return Coverage(int8=dict(int8), floating=dict(floating), boundary=dict(boundary), partitions=1)
