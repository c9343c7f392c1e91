"""LiteRT (formerly TensorFlow Lite) with XNNPACK: runs a peer, never an artifact of a bundle."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.runtime.program import (
    Array,
    Arrays,
    Names,
    OutputError,
    Program,
    RuntimeUnavailableError,
    as_file,
)


class LiteRTProgram(Program):
    """An opened `.tflite` with int8 NHWC codes, of its own quantisation, in and out."""

    def __init__(self, content: bytes, threads: int) -> None:
        interpreter_module = _interpreter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._interpreter = interpreter_module.Interpreter(model_content=content, num_threads=threads)
        self._interpreter.allocate_tensors()
        (inp,) = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(outputs) != 2 or any(details["dtype"] is not np.int8 for details in (inp, *outputs)):
            raise OutputError("the .tflite does not have one input and two outputs of int8")
        self._input = inp["index"]
        self._outputs = [details["index"] for details in outputs]
        self._quantization = [_quantization(details) for details in (inp, *outputs)]

    def prepare(self, *inputs: Array) -> Arrays:
        """Quantise, channels last."""
        (image,) = inputs
        return (np.ascontiguousarray(self._quantization[0].quantize(image).transpose(0, 2, 3, 1)),)

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; the outputs are new arrays."""
        (x,) = inputs
        self._interpreter.set_tensor(self._input, x)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)

    def finish(self, outputs: Arrays) -> Arrays:
        """Dequantise, channels first."""
        pairs = zip(self._quantization[1:], outputs, strict=True)
        return tuple(q.dequantize(codes.transpose(0, 3, 1, 2)) for q, codes in pairs)


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> LiteRTProgram:
    """Open a `.tflite`, which is never exact."""
    return LiteRTProgram(as_file(content), threads)


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
            f"LiteRT cannot be imported ({error}): install it with `pip install -e '.[peers]'`"
        ) from error
    module: ModuleType = interpreter
    return module
