"""Private names of ExecuTorch 1.5's Python bindings."""

from __future__ import annotations

from types import ModuleType
from typing import Any

PRIVATE = {
    "executorch.extension.pybindings._C": (
        "_load_for_executorch_from_buffer",
        "_threadpool_get_thread_count",
        "_unsafe_reset_threadpool",
    ),
}


def bindings() -> ModuleType:
    """The extension module: `portable_lib`, which re-exports it, imports the exporter for seconds.

    Raises:
        ImportError: ExecuTorch or torch is not installed.
    """
    import torch  # noqa: F401  # the extension needs its libraries loaded
    from executorch.extension.pybindings import _C

    module: ModuleType = _C
    return module


def load_program(content: bytes, *, traced: bool) -> Any:
    """Load a program, which reads from `content` as long as it lives; `traced` records an event for each operator."""
    return bindings()._load_for_executorch_from_buffer(content, enable_etdump=traced)


def thread_count() -> int:
    """How many threads XNNPACK's pool has."""
    count: int = bindings()._threadpool_get_thread_count()
    return count


def reset_threads(threads: int) -> None:
    """Give the process a new pool of so many threads; what was loaded on the old one must not run again."""
    bindings()._unsafe_reset_threadpool(threads)
