"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from litehrnet_stage2.runtime.onnx_file import check_self_contained
from litehrnet_stage2.runtime.program import Arrays, Names, Program, RuntimeUnavailableError, as_file

_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
"""Where a file in memory has its external data: nowhere. Else it is the current folder, and no hash covers that."""


class OnnxRuntimeProgram(Program):
    """An opened `.onnx`.

    Args:
        content: the bytes of the file.
        threads: that share an operator's work.
        settings: of the session, by ONNX Runtime's keys.
        names: of the inputs and outputs; by default the file's own, in its order.
        trace: where to record an event for each operator, if at all; `end_trace` closes it.

    Raises:
        OnnxFileError: the file refers to data outside of it.
    """

    def __init__(
        self,
        content: bytes,
        threads: int,
        *,
        settings: Mapping[str, str],
        names: Names | None = None,
        trace: Path | None = None,
    ) -> None:
        check_self_contained(content)
        ort = _onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        for key, value in settings.items():
            options.add_session_config_entry(key, value)
        options.add_session_config_entry(_EXTERNAL_DATA, os.devnull)
        options.log_severity_level = 3
        if trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(trace)
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        own = Names(
            tuple(node.name for node in self._session.get_inputs()),
            tuple(node.name for node in self._session.get_outputs()),
        )
        self._names = own if names is None else names
        own.check("the .onnx", self._names)

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; the outputs are new arrays."""
        return tuple(self._session.run(self._names.outputs, dict(zip(self._names.inputs, inputs, strict=True))))

    def end_trace(self) -> Path:
        """The file with the events of every run so far, as JSON."""
        return Path(self._session.end_profiling())


def open_program(content: bytes | Path, *, threads: int, exact: bool, names: Names | None = None) -> OnnxRuntimeProgram:
    """Open an `.onnx`: of a bundle, so that it computes the function (`exact`), or another with default settings."""
    return OnnxRuntimeProgram(as_file(content), threads, settings=exact_settings() if exact else {}, names=names)


def exact_settings() -> dict[str, str]:
    """What makes ONNX Runtime compute the function on this processor.

    x86 without VNNI multiplies uint8 by int8 in instructions that saturate at 16 bits, which is not the function.
    The setting has ONNX Runtime multiply uint8 by uint8, which where VNNI is only costs time: twice the latency.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return {}
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    return {} if {"avx512_vnni", "avx_vnni"} & set(flags) else {"session.x64quantprecision": "1"}


def library_version() -> str:
    """Version of ONNX Runtime, which is imported."""
    return str(_onnxruntime().__version__)


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime cannot be imported ({error}): install it with `pip install onnxruntime`"
        ) from error
    module: ModuleType = onnxruntime
    return module
