"""Core ML itself, on a Mac: an exact package on the CPU, whose codes have to be equal, another on the Neural Engine."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from litehrnet_stage2.runtime.coreml.mil import MilProgram
from litehrnet_stage2.runtime.coreml.predict import WORKER, predict
from litehrnet_stage2.runtime.program import Arrays, Names, Program, RuntimeUnavailableError, as_folder
from litehrnet_stage2.runtime.programs.coreml_eval_program import names_of


class CoreMlProgram(Program):
    """Predicts on one set of compute units, a process for each batch.

    Args:
        package: the `.mlpackage`; a private copy is what Core ML reads.
        unit: a key of `predict.UNITS`.
        names: of its inputs and outputs.
        worker: the command of the process that predicts.
    """

    takes_batches = True

    def __init__(self, package: Path, unit: str, names: Names, *, worker: Sequence[str] = WORKER) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="litehrnet-stage2-")
        self._package = Path(shutil.copytree(package, Path(self._folder.name, package.name)))
        self._unit, self._names, self._worker = unit, names, worker

    def run(self, inputs: Arrays) -> Arrays:
        """Predictions of a batch, all images in one process.

        Raises:
            PredictionError: Core ML gave no outputs.
        """
        named = dict(zip(self._names.inputs, inputs, strict=True))
        found = predict(self._package, self._unit, named, self._names.outputs, worker=self._worker)
        return tuple(found.outputs.values())

    def close(self) -> None:
        """Remove the copy."""
        self._folder.cleanup()


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> CoreMlProgram:
    """Open an `.mlpackage`; Core ML decides itself how many threads it uses."""
    package = as_folder(content)
    return CoreMlProgram(package, "cpu" if exact else "cpu+ne", names or names_of(MilProgram.load(package)))


def library_version() -> str:
    """Version of coremltools, through which Core ML is reached.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """
    if importlib.util.find_spec("coremltools") is None:
        raise RuntimeUnavailableError("Core ML is reached through coremltools: pip install -e '.[convert]'")
    return metadata.version("coremltools")
