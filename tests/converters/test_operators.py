"""Each operator alone, as a function of one node, in every runtime; every code where the domain is finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.converters import to_coreml, to_executorch_codes, to_litert_codes, to_onnx_codes
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.lowering import LoweringError
from litehrnet_stage2.reference.operators import (
    KINDS,
    Add,
    Concat,
    Conv,
    MaxPool,
    Mean,
    Mul,
    Nearest,
    Operator,
    Resize,
    SiLU,
    Table,
)
from litehrnet_stage2.reference.quantization import Codes, Quantization
from litehrnet_stage2.reference.settle import settle
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.program import open_program


def q(scale: float, zero_point: int) -> Quantization:
    return Quantization(np.float32(scale), zero_point)


def noise(*shape: int) -> Codes:
    return np.random.default_rng(sum(shape)).integers(-128, 128, shape).astype(np.int8)


def every_code() -> Codes:
    """All 256 codes in each of 16 channels."""
    return np.tile(np.arange(-128, 128, dtype=np.int8), (16, 1)).reshape(1, 16, 16, 16)


def every_pair() -> tuple[Codes, Codes]:
    """All 65,536 pairs of codes."""
    first, second = np.mgrid[-128:128, -128:128].astype(np.int8)
    return first.reshape(1, 16, 64, 64), second.reshape(1, 16, 64, 64)


def convolution(weight: NDArray[np.int8], **geometry: object) -> Conv:
    scale = np.linspace(0.01, 0.02, len(weight), dtype=np.float32)
    bias = np.arange(len(weight), dtype=np.int32) * 100
    return Conv(name="y", inputs=("x",), weight=weight, weight_scale=scale, bias=bias, **geometry)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """A node, the quantisation of what it reads and writes, and the codes to try."""

    node: Operator
    quantization: dict[str, Quantization]
    inputs: tuple[Codes, ...]


def unary(node: Operator, read: Quantization, out: Quantization | None = None, codes: Codes | None = None) -> Row:
    return Row(node, {"x": read, "y": out or read}, (every_code() if codes is None else codes,))


def table(function: str, read: Quantization, out: Quantization) -> Row:
    return unary(Table(name="y", inputs=("x",), function=function), read, out)


def binary(node: Operator, a: Quantization, b: Quantization, y: Quantization, codes: tuple[Codes, ...]) -> Row:
    return Row(node, {"a": a, "b": b, "y": y}, codes)


ANY = q(0.05, 3)
ROWS: dict[str, Row] = {
    "conv 3x3": unary(convolution(noise(8, 16, 3, 3) // 2, padding=(1, 1, 1, 1)), ANY, q(0.9, -5)),
    "conv 7x7/2 of 3": unary(
        convolution(noise(8, 3, 7, 7) // 2, stride=(2, 2), padding=(3, 3, 3, 3)), ANY, q(0.9, -5), noise(1, 3, 16, 16)
    ),
    "conv dilated": unary(convolution(noise(8, 16, 3, 3) // 2, padding=(2, 2, 2, 2), dilation=(2, 2)), ANY, q(0.9, 4)),
    "conv depthwise 5x5": unary(convolution(noise(16, 1, 5, 5) // 2, padding=(2, 2, 2, 2), groups=16), ANY, q(0.3, 4)),
    "conv 1x5": unary(convolution(noise(8, 16, 1, 5) // 2, padding=(0, 2, 0, 2)), ANY, q(0.5, 4)),
    "silu": unary(SiLU(name="y", inputs=("x",)), ANY, q(0.03, -117)),
    "add": binary(Add(name="y", inputs=("a", "b")), ANY, q(0.031, -9), q(0.07, 11), every_pair()),
    "mul": binary(Mul(name="y", inputs=("a", "b")), ANY, q(1 / 256, -128), q(0.041, -7), every_pair()),
    "mul with a gate": binary(
        Mul(name="y", inputs=("a", "b")), ANY, q(0.0039, -120), q(0.041, -7), (every_code(), noise(1, 16, 1, 1))
    ),
    "concat": binary(Concat(name="y", inputs=("a", "b")), ANY, ANY, ANY, (every_code(), noise(1, 8, 16, 16))),
    "nearest 2": unary(Nearest(name="y", inputs=("x",), factor=2), ANY),
    "nearest 3": unary(Nearest(name="y", inputs=("x",), factor=3), ANY, codes=noise(1, 5, 4, 6)),
    "max pool 3x3/2": unary(
        MaxPool(name="y", inputs=("x",), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
        ANY,
        codes=noise(1, 16, 9, 9),
    ),
    "max pool padded unevenly": unary(
        MaxPool(name="y", inputs=("x",), kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
        ANY,
        codes=noise(1, 16, 8, 10),
    ),
    "concat of 11": Row(
        Concat(name="y", inputs=tuple("abcdefghijk")),
        dict.fromkeys("abcdefghijky", ANY),
        tuple(noise(1, 2 + i % 3, 4, 6) for i in range(11)),
    ),
    "mean": unary(Mean(name="y", inputs=("x",), cells=49), ANY, q(0.0071, 11), noise(1, 64, 7, 7)),
    "resize 2": unary(Resize(name="y", inputs=("x",), factor=2), ANY),
    "resize 4": unary(Resize(name="y", inputs=("x",), factor=4), ANY, codes=noise(1, 8, 8, 12)),
    "resize 8": unary(Resize(name="y", inputs=("x",), factor=8), ANY, codes=noise(1, 8, 4, 6)),
    "identity": table("identity", ANY, q(0.031, -20)),
    "relu": table("relu", ANY, q(0.03, -128)),
    "relu among negatives": table("relu", ANY, q(0.06, -40)),
    "relu6": table("relu6", q(0.1, -10), q(6 / 255, -128)),
    "sigmoid": table("sigmoid", ANY, q(1 / 256, -128)),
    "tanh": table("tanh", q(0.03, 5), q(1 / 127, 1)),
    "hardswish": table("hardswish", q(0.07, -9), q(0.035, -118)),
}


def settled(row: Row) -> IntegerFunction:
    """The function of that node alone, with the scales that freezing gives it."""
    found = settle([row.node], row.quantization)
    shapes = {name: codes.shape for name, codes in zip(row.node.inputs, row.inputs, strict=True)}
    return assemble("alone", shapes, {"out": "y"}, found.nodes, found.quantization)


def test_every_kind_of_operator_has_a_row() -> None:
    assert {type(row.node) for row in ROWS.values()} == set(KINDS.values())


def test_litert_refuses_what_it_cannot_give_exactly(tmp_path: Path) -> None:
    """A pooling that skips cells, which XNNPACK does not take."""
    skipping = MaxPool(name="y", inputs=("x",), kernel=(2, 2), stride=(3, 3))
    with pytest.raises(LoweringError, match=r"LiteRT .*`y`"):
        to_litert_codes.convert(settled(unary(skipping, ANY)), tmp_path / "alone.tflite", Deployment())


CONVERTERS: dict[str, Callable[..., object]] = {
    "executorch-codes": to_executorch_codes.convert,
    "litert-codes": to_litert_codes.convert,
    "onnx-codes": to_onnx_codes.convert,
}
CASES = [(target, name) for target in CONVERTERS for name in ROWS]


@pytest.mark.parametrize(("target", "name"), CASES)
def test_it_gives_the_golden_codes(target: str, name: str, tmp_path: Path) -> None:
    function = settled(ROWS[name])
    artifact = ARTIFACTS[target]
    path = tmp_path / artifact.file(function.name)
    CONVERTERS[target](function, path, Deployment())
    program = open_program(artifact.library, path.read_bytes(), threads=1, exact=True)
    bordered = BorderProgram(program, *border_specs(function), artifact.border)
    (found,) = bordered.to_codes(bordered.run(bordered.from_codes(*ROWS[name].inputs)))
    np.testing.assert_array_equal(found, golden.evaluate(function, *ROWS[name].inputs)["out"])


@pytest.mark.parametrize("name", ROWS)
def test_it_gives_the_golden_codes_in_core_ml(name: str, tmp_path: Path) -> None:
    function = settled(ROWS[name])
    to_coreml.convert(function, tmp_path / "alone.mlpackage", Deployment())
    values = {
        read: function.quantization[read].dequantize(codes)
        for read, codes in zip(function.inputs, ROWS[name].inputs, strict=True)
    }
    found = evaluate(MilProgram.load(tmp_path / "alone.mlpackage"), values)["out"]
    due = golden.evaluate(function, *ROWS[name].inputs)["out"]
    np.testing.assert_array_equal(function.output_quantization["out"].quantize(found), due)
