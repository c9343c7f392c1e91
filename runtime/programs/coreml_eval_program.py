"""Core ML packages run by the evaluator, at the package's own precision: parity without Apple hardware."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.coreml.evaluate import check_supported, evaluate
from litehrnet_stage2.runtime.coreml.mil import MilProgram
from litehrnet_stage2.runtime.coreml.proto import message_modules
from litehrnet_stage2.runtime.program import Arrays, Names, Program, RuntimeUnavailableError, as_folder


class EvaluatorProgram(Program):
    """Evaluates a package's program."""

    def __init__(self, program: MilProgram, names: Names | None = None) -> None:
        own = names_of(program)
        self.program, self._names = program, own if names is None else names
        own.check("the package", self._names)

    def run(self, inputs: Arrays) -> Arrays:
        """One inference."""
        found = evaluate(self.program, dict(zip(self._names.inputs, inputs, strict=True)))
        return tuple(found[name] for name in self._names.outputs)


def names_of(program: MilProgram) -> Names:
    """A package's own names."""
    return Names(*(tuple(tensor.name for tensor in of) for of in (program.inputs, program.outputs)))


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> EvaluatorProgram:
    """Open an `.mlpackage`, which may be removed then; numpy decides itself how many threads its BLAS uses.

    Raises:
        InputError: the package is damaged, or holds what cannot be evaluated.
    """
    package = as_folder(content)
    try:
        program = MilProgram.load(package)
        check_supported(program)
    except ValueError as error:
        above = package.parent
        raise InputError(str(error).replace(f"{above.resolve()}/", "").replace(f"{above}/", "")) from error
    return EvaluatorProgram(program, names)


def library_version() -> str:
    """Version of numpy, which evaluates.

    Raises:
        RuntimeUnavailableError: coremltools, whose messages describe a package, is not installed.
    """
    try:
        message_modules()
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"Core ML packages cannot be evaluated: {error}") from error
    return np.__version__
