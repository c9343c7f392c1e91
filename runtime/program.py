"""A program: one artifact opened in one library, arrays in and out, nothing checked. Sessions and timing share it."""

from __future__ import annotations

import importlib
import platform
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.contract.artifacts import LIBRARIES
from litehrnet_stage2.reference.errors import InputError, Stage2Error

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = tuple[Array, ...]
Floats: TypeAlias = NDArray[np.float32]


class RuntimeUnavailableError(Stage2Error):
    """A runtime is not installed here; the message says what to install."""


class OutputError(Stage2Error):
    """A runtime returned something that is not the function's output at all."""


@dataclass(frozen=True)
class Names:
    """What the inputs and outputs are called, in the order in which a program takes and gives them."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def check(self, what: str, due: Names) -> None:
        """Check that these, of `what`, are those that are due, in whatever order.

        Raises:
            OutputError: they are not.
        """
        if sorted(self.inputs) != sorted(due.inputs) or sorted(self.outputs) != sorted(due.outputs):
            raise OutputError(
                f"{what} maps {', '.join(self.inputs)} to {', '.join(self.outputs)}, "
                f"not {', '.join(due.inputs)} to {', '.join(due.outputs)}"
            )


class Program(ABC):
    """An artifact that can run, not thread-safe. What is timed is `run` alone.

    `prepare` and `finish` are what stands between `run` and float32 NCHW: nothing for a program that takes and
    gives that.
    """

    takes_batches = False
    """Whether a call of `run` may have many images, because it costs a process."""

    def prepare(self, *inputs: Array) -> Arrays:
        """What `run` takes, of each input float32 `[N,C,H,W]`; N is 1 unless the program takes batches."""
        return tuple(map(np.ascontiguousarray, inputs))

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """One inference. The outputs may live in memory that the next `run` overwrites."""

    def finish(self, outputs: Arrays) -> Arrays:
        """Each output as float32 `[N,C,H,W]`, of what `run` gave."""
        return outputs

    def close(self) -> None:  # noqa: B027 (most programs hold nothing but memory)
        """Let go of what is outside of this process's memory."""


def open_program(
    library: str, content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None
) -> Program:
    """Open an artifact in a library of `LIBRARIES`, whose module's `open_program` has the same arguments.

    Args:
        library: its name.
        content: the bytes of the artifact, or its folder, which has to stay as long as the program.
        threads: of the library; those that decide themselves ignore it.
        exact: whether it is a bundle's that has to give the golden codes, or another, run as the library is by default.
        names: of a bundle's inputs and outputs; without them the artifact's own order is kept.

    Raises:
        RuntimeUnavailableError: the library is not installed.
        ValueError: the artifact is not one that the library can run.
        OutputError: it has not the inputs and outputs that are named.
    """
    module = importlib.import_module(LIBRARIES[library].program)
    return cast(Program, module.open_program(content, threads=threads, exact=exact, names=names))


def as_file(content: bytes | Path) -> bytes:
    """The content of an artifact that is a file."""
    return content if isinstance(content, bytes) else content.read_bytes()


def as_folder(content: bytes | Path) -> Path:
    """An artifact that is a folder.

    Raises:
        InputError: it is a file.
    """
    if isinstance(content, bytes):
        raise InputError("it is a file, where a folder is due")
    return content


def library_version(library: str) -> str:
    """Version of a library. Imports it, so that a load timed afterwards does not pay for that.

    Raises:
        RuntimeUnavailableError: the library is not installed, or this system has none.
    """
    check_system(library, "stage2", "")
    return cast(str, importlib.import_module(LIBRARIES[library].program).library_version())


def check_system(library: str, command: str, instead: str) -> None:
    """Check that a library runs on this system; `command` is what to run where it does, `instead` what can be had here.

    Raises:
        RuntimeUnavailableError: it does not.
    """
    row = LIBRARIES[library]
    if row.system and (system := platform.system()) != row.system:
        raise RuntimeUnavailableError(
            f"{row.title} itself needs {row.where}, and this is {system}: copy the bundle to one, "
            f"install with `pip install -e '.[{row.extra}]'`, and run `{command}` there{instead}"
        )
