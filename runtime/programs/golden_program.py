"""The golden evaluator: the bundle's integer function itself, numpy alone, on any machine."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference import golden, integer_function
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime.program import Arrays, Names, Program, as_file


class GoldenProgram(Program):
    """Evaluates an integer function on int8 codes NCHW."""

    takes_batches = True

    def __init__(self, function: IntegerFunction) -> None:
        self._function = function

    def run(self, inputs: Arrays) -> Arrays:
        """Codes in, codes out."""
        return tuple(golden.evaluate(self._function, *inputs).values())


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> GoldenProgram:
    """Open a `function.npz`; numpy decides itself how many threads its BLAS uses."""
    return GoldenProgram(integer_function.load(io.BytesIO(as_file(content))))


def library_version() -> str:
    """Version of numpy."""
    return np.__version__
