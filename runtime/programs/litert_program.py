"""LiteRT (formerly TensorFlow Lite) with XNNPACK."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.reference.upstream.litert_2 import ADVICE, undelegated
from litehrnet_stage2.runtime.program import (
    Array,
    Arrays,
    Names,
    Program,
    RuntimeUnavailableError,
    as_file,
)


class LiteRTProgram(Program):
    """An opened `.tflite`.

    Args:
        content: the bytes of the file.
        threads: of XNNPACK.
        names: of the inputs and outputs; by default the file's own, in its order.

    Raises:
        OutputError: it has other inputs or outputs than those that are named.
    """

    def __init__(self, content: bytes, threads: int, *, names: Names | None = None) -> None:
        self.interpreter = _interpreter().Interpreter(model_content=content, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.inputs = {details["name"]: details for details in self.interpreter.get_input_details()}
        self.outputs = {details["name"]: details for details in self.interpreter.get_output_details()}
        own = Names(tuple(self.inputs), tuple(self.outputs))
        order = own if names is None else names
        own.check("the .tflite", order)
        self._inputs = [self.inputs[name]["index"] for name in order.inputs]
        self._outputs = [self.outputs[name]["index"] for name in order.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; the outputs are new arrays."""
        for index, x in zip(self._inputs, inputs, strict=True):
            self.interpreter.set_tensor(index, x)
        self.interpreter.invoke()
        return tuple(self.interpreter.get_tensor(index) for index in self._outputs)

    def check_delegate(self) -> None:
        """Check that XNNPACK runs all of it.

        Raises:
            RuntimeUnavailableError: this LiteRT runs a part in kernels of its own.
        """
        if left := undelegated(self.interpreter, self._outputs):
            raise RuntimeUnavailableError(f"LiteRT here does not compute the function: {left}. {ADVICE}")


class StockLiteRTProgram(LiteRTProgram):
    """A `.tflite` with int8 codes of its own quantisation, channels last, in and out: of a baseline."""

    def prepare(self, *inputs: Array) -> Arrays:
        """Quantise, channels last."""
        pairs = zip(inputs, self.inputs.values(), strict=True)
        return tuple(
            np.ascontiguousarray(_quantization(details).quantize(x).transpose(0, 2, 3, 1)) for x, details in pairs
        )

    def finish(self, outputs: Arrays) -> Arrays:
        """Dequantise, channels first."""
        pairs = zip(outputs, self.outputs.values(), strict=True)
        return tuple(_quantization(details).dequantize(y.transpose(0, 3, 1, 2)) for y, details in pairs)


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None) -> LiteRTProgram:
    """Open a `.tflite`: a bundle's, which XNNPACK has to take whole (`exact`), or a baseline's."""
    if not exact:
        return StockLiteRTProgram(as_file(content), threads, names=names)
    program = LiteRTProgram(as_file(content), threads, names=names)
    program.check_delegate()
    return program


def library_version() -> str:
    """Version of LiteRT, which is imported."""
    _interpreter()
    return version("ai-edge-litert")


def _quantization(details: dict[str, Any]) -> Quantization:
    scale, zero_point = details["quantization"]
    return Quantization(np.float32(scale), int(zero_point))


def _interpreter() -> ModuleType:
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"LiteRT cannot be imported ({error}): install it with `pip install -e '.[litert]'`"
        ) from error
    module: ModuleType = interpreter
    return module
