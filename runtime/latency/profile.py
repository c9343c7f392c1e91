"""Time by kind of operator: ONNX Runtime's profiler, and the event tracer of ExecuTorch with XNNPACK's own events."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from litehrnet_stage2.runtime.latency.plan import PROFILE_QUERIES, Candidate
from litehrnet_stage2.runtime.latency.result import OperatorTime, Profile
from litehrnet_stage2.runtime.program import Program

Event = tuple[str, str, float]
"""Operator, its kind, ms; summed over runs."""

XNNPACK_KINDS = {"Invalid Unary Op": "Table lookup (SiLU)"}
"""XNNPACK has no name for its table operator."""


def record(candidate: Candidate, content: bytes, prepare: Callable[[Program], Any]) -> Profile:
    """Run an artifact with its library's tracer on; `prepare` gives the input for the opened program."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        match candidate.library:
            case "onnxruntime":
                return _onnxruntime(content, candidate, prepare, folder)
            case "executorch":
                return _executorch(content, candidate.threads, prepare, folder)
    return Profile(source=f"{candidate.library} offers no profile through its Python bindings", operators=())


def _onnxruntime(content: bytes, candidate: Candidate, prepare: Callable[[Program], Any], folder: Path) -> Profile:
    from litehrnet_stage2.runtime.onnxruntime_session import OnnxRuntimeProgram, exact_settings

    settings = exact_settings() if candidate.exact else {}
    program = OnnxRuntimeProgram(content, candidate.threads, settings=settings, trace=folder / "trace")
    x = prepare(program)
    for _ in range(PROFILE_QUERIES):
        program.run(x)
    trace = json.loads(program.end_trace().read_text(encoding="utf-8"))
    kernels = (entry for entry in trace if entry.get("cat") == "Node" and entry["name"].endswith("_kernel_time"))
    events = ((entry["name"], entry["args"]["op_name"], entry["dur"] / 1e3) for entry in kernels)
    return Profile(source="ONNX Runtime's profiler", operators=by_kind(events, PROFILE_QUERIES))


def _executorch(content: bytes, threads: int, prepare: Callable[[Program], Any], folder: Path) -> Profile:
    from litehrnet_stage2.runtime.executorch_session import ExecuTorchProgram

    program = ExecuTorchProgram(content, threads, traced=True)
    package = Path(next(iter(importlib.import_module("executorch").__path__)))
    x = prepare(program)
    for _ in range(PROFILE_QUERIES):
        program.run(x)
    program.write_trace(folder / "trace.etdump")
    flatc = package / "data" / "bin" / "flatc"
    schema = package / "devtools" / "etdump" / "etdump_schema_flatcc.fbs"
    if missing := [path for path in (flatc, schema) if not path.is_file()]:
        return Profile(source=f"ExecuTorch's trace cannot be read here: it came without {missing[0]}", operators=())
    # Its own reader imports the whole exporter to do the same.
    flags = ["--json", "--strict-json", "--size-prefixed", "--raw-binary"]
    command = [flatc, *flags, "-o", folder, schema, "--", folder / "trace.etdump"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    profiled = [e["profile_event"] for run in trace["run_data"] for e in run.get("events", ()) if "profile_event" in e]
    # In nanoseconds, though XNNPACK only counts whole microseconds.
    events = (
        (name, re.sub(r" #\d+$", "", name), (event["end_time"] - event["start_time"]) / 1e6)
        for event in profiled
        if (name := event.get("delegate_debug_id_str"))
    )
    operators = by_kind(events, PROFILE_QUERIES)
    if not operators:
        return Profile(source="this ExecuTorch was built without XNNPACK's profile", operators=())
    return Profile(source="ExecuTorch's event tracer, with XNNPACK's operators", operators=operators)


def by_kind(events: Iterable[Event], runs: int) -> tuple[OperatorTime, ...]:
    """Events of `runs` runs by kind, the most expensive first."""
    time_ms: defaultdict[str, float] = defaultdict(float)
    names: defaultdict[str, set[str]] = defaultdict(set)
    for name, kind, ms in events:
        kind = XNNPACK_KINDS.get(kind, kind)
        time_ms[kind] += ms
        names[kind].add(name)
    total = sum(time_ms.values())
    return tuple(
        OperatorTime(kind=kind, count=len(names[kind]), share=ms / total, mean_ms=ms / runs)
        for kind, ms in sorted(time_ms.items(), key=lambda item: -item[1])
    )
