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
from statistics import median
from typing import Any, TypeAlias

from litehrnet_stage2.runtime.latency.lanes import Trace, TracedOperators
from litehrnet_stage2.runtime.latency.plan import PROFILE_QUERIES, Candidate
from litehrnet_stage2.runtime.program import Program

Event: TypeAlias = tuple[str, str, float]
"""Operator, its kind, ms: one for each time it ran."""

XNNPACK_KINDS = {"Invalid Unary Op": "Table lookup (SiLU)"}
"""XNNPACK has no name for its table operator."""


def record(candidate: Candidate, content: bytes, prepare: Callable[[Program], Any]) -> Trace:
    """Run an artifact with its library's tracer on; `prepare` gives the input for the opened program."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        match candidate.library:
            case "onnxruntime":
                return _onnxruntime(content, candidate, prepare, folder)
            case "executorch":
                return _executorch(content, candidate.threads or 1, prepare, folder)
    return Trace(source=f"{candidate.library} offers no profile through its Python bindings", operators=())


def _onnxruntime(content: bytes, candidate: Candidate, prepare: Callable[[Program], Any], folder: Path) -> Trace:
    from litehrnet_stage2.runtime.programs.onnxruntime_program import OnnxRuntimeProgram, exact_settings

    settings = exact_settings() if candidate.exact else {}
    program = OnnxRuntimeProgram(content, candidate.threads or 1, settings=settings, trace=folder / "trace")
    x = prepare(program)
    for _ in range(PROFILE_QUERIES):
        program.run(x)
    trace = json.loads(program.end_trace().read_text(encoding="utf-8"))
    kernels = (entry for entry in trace if entry.get("cat") == "Node" and entry["name"].endswith("_kernel_time"))
    events = ((entry["name"], entry["args"]["op_name"], entry["dur"] / 1e3) for entry in kernels)
    return Trace(source="ONNX Runtime's profiler", operators=by_kind(events, PROFILE_QUERIES))


def _executorch(content: bytes, threads: int, prepare: Callable[[Program], Any], folder: Path) -> Trace:
    from litehrnet_stage2.runtime.programs.executorch_program import ExecuTorchProgram

    program = ExecuTorchProgram(content, threads, traced=True)
    package = Path(next(iter(importlib.import_module("executorch").__path__)))
    x = prepare(program)
    for _ in range(PROFILE_QUERIES):
        program.run(x)
    program.write_trace(folder / "trace.etdump")
    flatc = package / "data" / "bin" / "flatc"
    schema = package / "devtools" / "etdump" / "etdump_schema_flatcc.fbs"
    if missing := [path for path in (flatc, schema) if not path.is_file()]:
        return Trace(source=f"ExecuTorch's trace cannot be read here: it came without {missing[0]}", operators=())
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
        return Trace(source="this ExecuTorch was built without XNNPACK's profile", operators=())
    return Trace(source="ExecuTorch's event tracer, with XNNPACK's operators", operators=operators)


def by_kind(events: Iterable[Event], runs: int) -> tuple[TracedOperators, ...]:
    """Events of `runs` runs by kind, the most expensive first.

    An operator takes its median, so that what slowed some of the runs is not in it.
    """
    times_ms: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for name, kind, ms in events:
        times_ms[XNNPACK_KINDS.get(kind, kind), name].append(ms)
    kinds: defaultdict[str, list[float]] = defaultdict(list)
    for (kind, _), ran in times_ms.items():
        kinds[kind].append(median(ran) * len(ran) / runs)
    found = (TracedOperators(kind=kind, count=len(ms), ms=sum(ms)) for kind, ms in kinds.items())
    return tuple(sorted(found, key=lambda one: -one.ms))
