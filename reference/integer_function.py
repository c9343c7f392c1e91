"""The integer function: what every artifact computes, as plain data (numpy only).

A network becomes a list of operators over named tensors of int8 codes. The golden evaluator interprets the
list, each converter translates it node by node, and `save`/`load` carry it to a device that has no torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.array_files import read_npz
from litehrnet_stage2.reference.contract.codec import parse
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators import KINDS, Conv, Operator, Shape
from litehrnet_stage2.reference.quantization import QMAX, QMIN, Codes, Quantization, saturate

__all__ = [
    "QMAX",
    "QMIN",
    "Codes",
    "IntegerFunction",
    "Quantization",
    "QuantizedTensor",
    "load",
    "saturate",
    "save",
]

MOST_BYTES = 2**28
"""Of all weights of a function."""

LONGEST_NAME = 1000

MOST_ELEMENTS = 2**31
"""Of one tensor: what a 32-bit index reaches."""


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """A tensor of int8 codes: its shape for one image, `[1, C, H, W]`, and what its codes mean."""

    shape: Shape
    quantization: Quantization

    def __post_init__(self) -> None:
        if type(self.shape) is not tuple or any(type(size) is not int or size < 1 for size in self.shape):
            raise InputError(f"a shape (={self.shape!r}) must be made of integers >= 1")
        if len(self.shape) != 4 or self.shape[0] != 1 or np.prod(self.shape, dtype=object) >= MOST_ELEMENTS:
            raise InputError(f"a shape (={list(self.shape)}) must be [1, C, H, W], of fewer than 2^31 elements")


@dataclass(frozen=True, kw_only=True)
class IntegerFunction:
    """A frozen network: int8 codes in, int8 codes out.

    Attributes:
        name: of the network; its artifacts are called after it.
        inputs: the tensors that are given, in order.
        outputs: the tensor that each output is, by the output's name, in order.
        tensors: every tensor, by name.
        nodes: in an order in which each reads only what was given or written before it.

    Raises:
        ValueError: the parts do not fit together.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    tensors: Mapping[str, QuantizedTensor]
    nodes: tuple[Operator, ...]

    def __post_init__(self) -> None:
        if type(self.name) is not str or not self.name.isidentifier():
            raise InputError(f"the name of a function (={self.name!r}) must be made of letters, digits and `_`")
        shapes = {name: self._tensor(name, "is an input").shape for name in self.inputs}
        if not self.inputs or len(shapes) != len(self.inputs):
            raise InputError(f"the inputs (={list(self.inputs)}) must be one or more, of different names")
        for node in self.nodes:
            for name in node.inputs:
                if name not in shapes:
                    raise InputError(f"`{node.name}` reads `{name}`, which nothing has written before it")
            if node.name in shapes:
                raise InputError(f"`{node.name}` is written twice")
            shapes[node.name] = node.shape(*(shapes[name] for name in node.inputs))
            tensor = self._tensor(node.name, "is written")
            if tensor.shape != shapes[node.name]:
                raise InputError(
                    f"`{node.name}` has shape {list(tensor.shape)}, but its operator gives {list(shapes[node.name])}"
                )
            if node.moves_codes and any(self.tensors[name].quantization != tensor.quantization for name in node.inputs):
                raise InputError(f"`{node.name}` moves codes, but what it reads has another quantisation")
        if unknown := sorted(set(self.tensors) ^ set(shapes)):
            raise InputError(f"the tensor `{unknown[0]}` is neither an input nor written")
        if not self.outputs or not set(self.outputs.values()) <= set(shapes):
            raise InputError(f"the outputs (={dict(self.outputs)}) must be one or more of the tensors")

    def _tensor(self, name: str, what: str) -> QuantizedTensor:
        if name not in self.tensors:
            raise InputError(f"`{name}` {what}, but has no shape and quantisation")
        return self.tensors[name]

    @cached_property
    def quantization(self) -> Mapping[str, Quantization]:
        """What the codes of every tensor mean, by its name."""
        return {name: tensor.quantization for name, tensor in self.tensors.items()}

    @property
    def input_quantization(self) -> Quantization:
        """What the codes of the first input mean."""
        return self.quantization[self.inputs[0]]

    @property
    def output_quantization(self) -> dict[str, Quantization]:
        """What the codes of each output mean, by its name."""
        return {name: self.quantization[tensor] for name, tensor in self.outputs.items()}

    def multiplier(self, conv: Conv) -> NDArray[np.float32]:
        """`M[c] = f32(f32(sx*sw[c]) / so)`: float32 `[O]`."""
        return conv.multiplier(self.quantization[conv.input], self.quantization[conv.name])

    def bias_scale(self, conv: Conv) -> NDArray[np.float32]:
        """`f32(sx*sw[c])`, the scale of the accumulator and of the bias: float32 `[O]`."""
        return conv.bias_scale(self.quantization[conv.input])

    def consumers(self, tensor: str) -> list[Operator]:
        """The nodes that read a tensor."""
        return [node for node in self.nodes if tensor in node.inputs]

    def check_inputs(self, *codes: Codes) -> None:
        """Check the codes of each input: int8, the shape of its tensor but for the batch, which is the same for all.

        Raises:
            ValueError: a wrong number of inputs, shape or dtype.
        """
        if len(codes) != len(self.inputs):
            raise InputError(
                f"{self.name} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), not {len(codes)}"
            )
        for name, array in zip(self.inputs, codes, strict=True):
            due = self.tensors[name].shape[1:]
            if array.ndim != 4 or array.shape[1:] != due or len(array) != len(codes[0]) or not len(array):
                expected = f"[N,{','.join(map(str, due))}]"
                raise InputError(f"the codes of `{name}` must have shape {expected}, but have {list(array.shape)}")
            if array.dtype != np.int8:
                raise InputError(f"codes must be int8, but are {array.dtype}: quantise float features first")


def save(function: IntegerFunction, path: Path) -> None:
    """Write an integer function as one `.npz` (numpy alone reads it; equal functions give equal bytes)."""
    arrays: dict[str, NDArray[Any]] = {}
    graph: dict[str, Any] = {
        "name": function.name,
        "inputs": function.inputs,
        "outputs": dict(function.outputs),
        "tensors": {
            name: {"shape": tensor.shape, "scale": float(q.scale), "zero_point": q.zero_point}
            for name, tensor in function.tensors.items()
            for q in (tensor.quantization,)
        },
        "nodes": [],
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
        arrays = read_npz(path if isinstance(path, Path) else path.read(), most_bytes=MOST_BYTES)
        graph = parse(bytes(arrays["graph"]))
        check_printable(graph)
        return IntegerFunction(
            name=graph["name"],
            inputs=tuple(graph["inputs"]),
            outputs=dict(graph["outputs"]),
            tensors={
                name: QuantizedTensor(
                    shape=tuple(entry["shape"]),
                    quantization=Quantization(np.float32(entry["scale"]), entry["zero_point"]),
                )
                for name, entry in graph["tensors"].items()
            },
            nodes=tuple(_node(entry, arrays) for entry in graph["nodes"]),
        )
    except (OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        where = path if isinstance(path, Path) else "the file"
        raise InputError(
            f"{where} does not hold an integer function ({error}): convert the checkpoint again"
        ) from error


def check_printable(values: Any) -> None:
    """Check that no text in plain data plays with a terminal, or is longer than a name.

    Raises:
        ValueError: one does, or is.
    """
    if isinstance(values, str) and not (values.isprintable() and len(values) <= LONGEST_NAME):
        raise InputError(f"{values!a:.60} is no name: at most {LONGEST_NAME} letters that can be printed")
    if isinstance(values, dict):
        values = [*values, *values.values()]
    if isinstance(values, list):
        for value in values:
            check_printable(value)


def _node(entry: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Operator:
    kind = KINDS[entry.pop("kind")]
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    for field in dataclasses.fields(kind):
        if (key := f"{entry['name']}/{field.name}") in arrays:
            fields[field.name] = arrays[key]
    return kind(**fields)
