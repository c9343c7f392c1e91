"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from litehrnet_stage2.reference.manifest import BundleError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.program import Array, Outputs, Program
from litehrnet_stage2.runtime.session import (
    OutputError,
    ProgramSession,
    RuntimeUnavailableError,
    Session,
    session_info,
)

_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
"""Where a file in memory has its external data: nowhere. Else it is the current folder, and no hash covers that."""


class OnnxRuntimeProgram(Program):
    """An opened `.onnx`.

    Args:
        content: the bytes of the file.
        threads: that share an operator's work.
        settings: of the session, by ONNX Runtime's keys.
        trace: where to record an event for each operator, if at all; `end_trace` closes it.
    """

    def __init__(self, content: bytes, threads: int, *, settings: Mapping[str, str], trace: Path | None = None) -> None:
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
        try:
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if "xternal data" not in str(error):
                raise
            raise BundleError(
                "the .onnx refers to data outside of its file, which no hash covers: convert the checkpoint again"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._names = [output.name for output in self._session.get_outputs()]
        if len(self._names) != 2:
            raise OutputError(f"the .onnx has {len(self._names)} outputs, not y1 and y2")

    def run(self, x: Array) -> Outputs:
        """One inference; the outputs are new arrays."""
        y1, y2 = self._session.run(self._names, {self._input: x})
        return y1, y2

    def end_trace(self) -> Path:
        """The file with the events of every run so far, as JSON."""
        return Path(self._session.end_profiling())


def open_program(content: bytes, threads: int, *, exact: bool) -> OnnxRuntimeProgram:
    """Open an `.onnx`: of a bundle, so that it computes the function (`exact`), or another with default settings."""
    return OnnxRuntimeProgram(content, threads, settings=exact_settings() if exact else {})


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


def open_session(bundle: Bundle, threads: int) -> Session:
    """Open the `.onnx`, its hash checked before ONNX Runtime sees a byte of it."""
    artifact = bundle.artifact("onnx")
    content = bundle.read(artifact)
    info = session_info(bundle, runtime="onnxruntime", version=library_version(), artifact=artifact, threads=threads)
    return ProgramSession(info, open_program(content, threads, exact=True))


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime cannot be imported ({error}): install it with `pip install onnxruntime`"
        ) from error
    module: ModuleType = onnxruntime
    return module
