"""A table of operators, each as a function of one node: what every runtime is held against, alone and together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.operators import (
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
    "conv 3x3/2 padded unevenly": unary(
        convolution(noise(8, 16, 3, 3) // 2, stride=(2, 2), padding=(0, 0, 1, 1)), ANY, q(0.9, -5)
    ),
    "conv 5x5/2 of 3": unary(
        convolution(noise(16, 3, 5, 5) // 2, stride=(2, 2), padding=(2, 2, 2, 2)), ANY, q(0.9, -5), noise(1, 3, 16, 24)
    ),
    "conv 1x1 to 1": unary(convolution(noise(1, 16, 1, 1) // 2), ANY, q(0.2, 5), noise(1, 16, 6, 24)),
    "conv 1x1 to 3": unary(convolution(noise(3, 16, 1, 1) // 2), ANY, q(0.2, 5), noise(1, 16, 6, 20)),
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
