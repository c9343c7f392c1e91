"""ExecuTorch with XNNPACK, through its Python bindings (which need torch; the native runner does not)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litehrnet_stage2.runtime.program import Arrays, Names, Program, RuntimeUnavailableError, as_file
from litehrnet_stage2.runtime.upstream.executorch_bindings_1_5 import (
    bindings,
    load_program,
    reset_threads,
    thread_count,
)


class _ThreadPool:
    """XNNPACK's pool, one for the process: resized, and programs loaded, only while nothing runs on it.

    ExecuTorch guards neither, and its log, which both write to, crashes when threads share it. A loaded program keeps
    the pool it was loaded with, which is gone once another size was asked for: to run on it then hangs or crashes, so
    the program is loaded again.
    """

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._running = 0
        self._age = 0

    def load(self, threads: int, make: Callable[[], Any]) -> tuple[Any, int]:
        """What `make` loads on a pool of so many threads, while nothing runs, and the age of the pool."""
        with self._idle:
            self._idle.wait_for(lambda: self._running == 0)
            if thread_count() != threads:
                reset_threads(threads)
                self._age += 1
            return make(), self._age

    @contextlib.contextmanager
    def running(self, program: ExecuTorchProgram) -> Iterator[None]:
        """Run on it, beside others; a program of an older pool is loaded again first."""
        with self._idle:
            if program.age != self._age:
                program.load()
            self._running += 1
        try:
            yield
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()


_POOL = _ThreadPool()


class ExecuTorchProgram(Program):
    """An opened `.pte`. XNNPACK's thread pool is the process's: programs of different sizes that alternate pay for it.

    Args:
        content: the bytes of the file.
        threads: of the pool.
        traced: record an event for each operator, for `write_trace`.
    """

    def __init__(self, content: bytes, threads: int, *, traced: bool = False) -> None:
        _check_installed()
        import torch

        self._from_numpy = torch.from_numpy
        self._content = content  # the module reads from this memory as long as it lives
        self._threads, self._traced = threads, traced
        self.load()

    def load(self) -> None:
        """Load the program on a pool of its threads; `age` is that pool's."""
        self._module, self.age = _POOL.load(self._threads, lambda: load_program(self._content, traced=self._traced))

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; the outputs are views of the module's memory."""
        with _POOL.running(self):
            outputs = self._module.run_method("forward", tuple(map(self._from_numpy, inputs)), clone_outputs=False)
        return tuple(output.numpy() for output in outputs)

    def write_trace(self, path: Path) -> None:
        """Write the events of every run so far as an ETDump."""
        self._module.write_etdump_result_to_file(str(path))


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> ExecuTorchProgram:
    """Open a `.pte`, which knows no names; whether it is exact makes no difference here."""
    return ExecuTorchProgram(as_file(content), threads)


def library_version() -> str:
    """Version of ExecuTorch, which is imported."""
    _check_installed()
    return version("executorch")


def _check_installed() -> None:
    try:
        bindings()
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ExecuTorch cannot be imported ({error}): install it with `pip install -e '.[convert]'`"
        ) from error
