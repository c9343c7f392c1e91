"""A program: one artifact opened in one runtime, arrays in and out, nothing checked. Sessions and timing share it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, LIBRARIES, Border
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.reference.manifest import TensorSpec

Array: TypeAlias = NDArray[Any]
Float: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.int8]
Outputs: TypeAlias = tuple[Array, Array]


class Program(ABC):
    """An artifact that can run, not thread-safe. What is timed is `run` alone.

    `prepare` and `finish` are what stands between it and float32 NCHW: nothing for a program that takes and
    gives that, quantisation and layout for one that takes and gives codes.
    """

    def prepare(self, image: Float) -> Array:
        """What `run` takes, of one image float32 `[1,C,H,W]`."""
        return np.ascontiguousarray(image)

    @abstractmethod
    def run(self, x: Array) -> Outputs:
        """One inference. The outputs may live in memory that the next `run` overwrites.

        Raises:
            OutputError: the artifact does not have two outputs.
        """

    def finish(self, outputs: Outputs) -> tuple[Float, Float]:
        """`Y1` and `Y2` as float32 NCHW, of what `run` gave."""
        return outputs


CODES_FORMATS: Mapping[str, Border] = {str(row.border): row.border for row in ARTIFACTS.values() if row.border.codes}
"""The borders of artifacts that take and give codes, by what a candidate calls them."""


class CodesProgram(Program):
    """A program that takes and gives the function's own codes, quantised and dequantised here."""

    def __init__(self, inner: Program, inp: TensorSpec, outputs: tuple[TensorSpec, TensorSpec], border: Border) -> None:
        self.inner = inner
        self._input, *self._outputs = (Quantization(np.float32(s.scale), s.zero_point) for s in (inp, *outputs))
        self._channels_last = border.layout == "channels_last"
        self._flip = np.uint8(border.offset)  # int8 codes and those 128 higher differ in their highest bit

    def prepare(self, image: Float) -> Array:
        """Quantise."""
        return self.from_codes(self._input.quantize(image))

    def from_codes(self, codes: Codes) -> Array:
        """What `run` takes, of int8 codes `[1,C,H,W]`."""
        if self._channels_last:
            codes = np.ascontiguousarray(codes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        else:
            codes = np.ascontiguousarray(codes)
        return codes.view(np.uint8) ^ self._flip if self._flip else codes

    def run(self, x: Array) -> Outputs:
        """One inference on codes."""
        return self.inner.run(x)

    def to_codes(self, outputs: Outputs) -> tuple[Codes, Codes]:
        """Int8 codes of what `run` gave."""
        y1, y2 = ((y.view(np.uint8) ^ self._flip).view(np.int8) for y in outputs)
        return y1, y2

    def finish(self, outputs: Outputs) -> tuple[Float, Float]:
        """Dequantise."""
        y1, y2 = (q.dequantize(codes) for q, codes in zip(self._outputs, self.to_codes(outputs), strict=True))
        return y1, y2


def open_program(library: str, content: bytes, *, threads: int, exact: bool) -> Program:
    """Open an artifact's bytes: a bundle's, which has to give the golden codes (`exact`), or another's.

    Raises:
        RuntimeUnavailableError: the library is not installed.
    """
    module = importlib.import_module(LIBRARIES[library].program)
    return cast(Program, module.open_program(content, threads, exact=exact))


def library_version(library: str) -> str:
    """Version of a library. Imports it, so that a load timed afterwards does not pay for that.

    Raises:
        RuntimeUnavailableError: the library is not installed.
    """
    return cast(str, importlib.import_module(LIBRARIES[library].program).library_version())
