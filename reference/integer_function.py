"""The integer function: what every artifact computes, as plain data (numpy only).

A network becomes a list of four kinds of node over int8 codes. The golden evaluator interprets the list,
each converter translates it node by node, and `save`/`load` carry it to a device that has no torch.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.config import Stage2Config

QMIN, QMAX = -128, 127

SIGMOID_SCALE = np.float32(1 / 256)
SIGMOID_ZERO_POINT = -128

INPUT = "features"
"""Name of the input tensor."""

OUTPUTS = ("y1", "y2")
"""Names of the two outputs, in order."""


@dataclass(frozen=True)
class Quantization:
    """Per-tensor affine int8: real value `scale * (code - zero_point)`; `scale` float32, code int8."""

    scale: np.float32
    zero_point: int

    def quantize(self, x: NDArray[np.float32]) -> NDArray[np.int8]:
        """`rne(x / scale) + zero_point`, clamped: any shape, float32 -> int8."""
        return saturate(np.rint(x.astype(np.float32) / self.scale) + np.float32(self.zero_point))

    def dequantize(self, codes: NDArray[np.int8]) -> NDArray[np.float32]:
        """`scale * (code - zero_point)`: any shape, int8 -> float32."""
        return self.scale * (codes.astype(np.float32) - np.float32(self.zero_point))


@dataclass(frozen=True, kw_only=True)
class Conv:
    """Convolution in codes, zero padding; writes the tensor `name`.

    Attributes:
        weight: int8 `[O, I/groups, k, k]`, in [-127, 127].
        weight_scale: float32 `[O]`.
        bias: int32 `[O]`, on the grid `input scale * weight_scale`.
    """

    name: str
    input: str
    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    stride: int
    padding: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class SiLU:
    """`x * sigmoid(x)` in codes, the sigmoid at scale 1/256 and zero point -128; writes `name`."""

    name: str
    input: str


@dataclass(frozen=True, kw_only=True)
class Add:
    """Addition of two tensors of equal shape in codes; writes `name`."""

    name: str
    inputs: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Bilinear x2 on codes, half-pixel centres, edges clamped, same quantisation in and out; writes `name`."""

    name: str
    input: str


Node: TypeAlias = Conv | SiLU | Add | Resize
_KINDS: dict[str, type[Node]] = {"conv": Conv, "silu": SiLU, "add": Add, "resize": Resize}


@dataclass(frozen=True, kw_only=True)
class IntegerFunction:
    """A frozen Stage2: int8 codes `[N,C,H,W]` in, the codes of `y1` and `y2` out.

    Attributes:
        config: the shape of the network.
        quantization: of every tensor, by name; the input's is under `INPUT`.
        nodes: in an order in which each reads only what was written before it.
        outputs: the tensors that are `y1` and `y2`.
    """

    config: Stage2Config
    quantization: Mapping[str, Quantization]
    nodes: tuple[Node, ...]
    outputs: tuple[str, str]

    @property
    def input_quantization(self) -> Quantization:
        """Of the features."""
        return self.quantization[INPUT]

    @property
    def output_quantization(self) -> dict[str, Quantization]:
        """Of `y1` and `y2`."""
        return {name: self.quantization[tensor] for name, tensor in zip(OUTPUTS, self.outputs, strict=True)}

    def multiplier(self, conv: Conv) -> NDArray[np.float32]:
        """`M[c] = f32(f32(sx*sw[c]) / so)`: float32 `[O]`."""
        return self.bias_scale(conv) / self.quantization[conv.name].scale

    def bias_scale(self, conv: Conv) -> NDArray[np.float32]:
        """`f32(sx*sw[c])`, the scale of the accumulator and of the bias: float32 `[O]`."""
        return self.quantization[conv.input].scale * conv.weight_scale

    def consumers(self, tensor: str) -> list[Node]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if tensor in inputs_of(node)]


def saturate(values: NDArray[np.number]) -> NDArray[np.int8]:
    """Clamp whole numbers, of any shape and dtype, to int8."""
    codes: NDArray[np.int8] = np.clip(values, QMIN, QMAX).astype(np.int8)
    return codes


def inputs_of(node: Node) -> tuple[str, ...]:
    """The tensors that a node reads."""
    return node.inputs if isinstance(node, Add) else (node.input,)


def save(function: IntegerFunction, path: Path) -> None:
    """Write an integer function as one `.npz` (numpy alone reads it; equal functions give equal bytes)."""
    arrays: dict[str, NDArray[Any]] = {}
    graph: dict[str, Any] = {
        "config": dataclasses.asdict(function.config),
        "quantization": {name: [float(q.scale), q.zero_point] for name, q in function.quantization.items()},
        "nodes": [],
        "outputs": function.outputs,
    }
    for node in function.nodes:
        entry: dict[str, Any] = {"kind": type(node).__name__.lower()}
        for field in dataclasses.fields(node):
            value = getattr(node, field.name)
            if isinstance(value, np.ndarray):
                arrays[f"{node.name}/{field.name}"] = value
            else:
                entry[field.name] = value
        graph["nodes"].append(entry)
    arrays["graph"] = np.frombuffer(json.dumps(graph).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path | BinaryIO) -> IntegerFunction:
    """Read what `save` wrote.

    Raises:
        ValueError: the file is not one, or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            graph = json.loads(bytes(arrays["graph"]))
            nodes = []
            for entry in graph["nodes"]:
                kind = _KINDS[entry.pop("kind")]
                fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
                for field in dataclasses.fields(kind):
                    if (key := f"{entry['name']}/{field.name}") in arrays:
                        fields[field.name] = arrays[key]
                nodes.append(kind(**fields))
            return IntegerFunction(
                config=Stage2Config.from_dict(graph["config"]),
                quantization={
                    name: Quantization(np.float32(scale), zero_point)
                    for name, (scale, zero_point) in graph["quantization"].items()
                },
                nodes=tuple(nodes),
                outputs=tuple(graph["outputs"]),
            )
    except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
        where = path if isinstance(path, Path) else "the file"
        raise ValueError(
            f"{where} does not hold an integer function ({error}): convert the checkpoint again"
        ) from error
