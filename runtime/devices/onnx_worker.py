"""Runs one ONNX model on a device that has Python, numpy and onnxruntime, and says how long each query took.

The twin of the native runner: the same flags and `--setting`, the same JSON on standard output, the same exit statuses.
It is copied to the device as a single file, so it imports nothing else of this package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_STATUS = {"flags": 2, "model": 3, "input": 4, "execution": 5}
_ELEMENTS = {
    "tensor(float)": "<f4",
    "tensor(double)": "<f8",
    "tensor(float16)": "<f2",
    "tensor(int8)": "|i1",
    "tensor(uint8)": "|u1",
    "tensor(int32)": "<i4",
    "tensor(int64)": "<i8",
}


class RefusalError(Exception):
    """An error of the runner's interface: its kind and one sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Parser(argparse.ArgumentParser):
    """Reports wrong flags as the runner does, in JSON."""

    def error(self, message: str) -> Any:
        """Raise instead of printing the usage."""
        raise RefusalError("flags", message)


def main(words: list[str]) -> int:
    """Run, print one JSON object, return the exit status."""
    try:
        result = run(words)
    except RefusalError as refusal:
        print(json.dumps({"error": {"kind": refusal.kind, "message": str(refusal)}}))
        return _STATUS[refusal.kind]
    print(json.dumps(result))
    return 0


def run(words: list[str]) -> dict[str, Any]:
    """Parse the flags, run every sample, time queries, run every sample again."""
    parser = Parser(add_help=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", action="append", default=[])
    parser.add_argument("--output", default="")
    parser.add_argument("--warmup", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--affinity", default="")
    parser.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE")
    flags = parser.parse_args(words)
    if flags.threads < 1 or flags.warmup < 0 or flags.iterations < 0:
        raise RefusalError("flags", "--threads must be >= 1, --warmup and --iterations >= 0")
    if flags.affinity:
        try:
            os.sched_setaffinity(0, _cores(flags.affinity))
        except (OSError, ValueError) as error:
            raise RefusalError("flags", f"--affinity (={flags.affinity}) cannot be set: {error}") from error
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        raise RefusalError(
            "execution",
            f"this device's python ({sys.executable}) cannot run .onnx files: {error}. Install onnxruntime",
        ) from error

    # onnxruntime's exceptions have no common base of their own.
    state = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    errors = tuple(value for value in state if isinstance(value, type) and issubclass(value, Exception))

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = flags.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for setting in flags.setting:
        options.add_session_config_entry(*setting.split("=", 1))
    start = time.perf_counter_ns()
    try:
        session = onnxruntime.InferenceSession(flags.model, options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise RefusalError("model", f"model {flags.model} cannot be loaded: {error}") from error
    load_ns = time.perf_counter_ns() - start

    declared = session.get_inputs()
    if len(declared) != len(flags.input):
        raise RefusalError(
            "input", f"the model has {len(declared)} inputs, but {len(flags.input)} --input files were given"
        )
    samples = [_samples(np, path, info) for path, info in zip(flags.input, declared, strict=True)]
    count = len(samples[0]) if samples else 1
    if any(len(s) != count for s in samples):
        raise RefusalError("input", f"the input files hold different numbers of samples: {[len(s) for s in samples]}")
    feeds = [{info.name: s[i] for info, s in zip(declared, samples, strict=True)} for i in range(count)]

    def query(index: int) -> tuple[int, list[Any]]:
        begin = time.perf_counter_ns()
        try:
            outputs = session.run(None, feeds[index % count])
        except errors as error:
            raise RefusalError("execution", f"the model failed: {error}") from error
        return time.perf_counter_ns() - begin, outputs

    def digest(outputs: list[Any]) -> list[str]:
        return [hashlib.sha256(output.tobytes()).hexdigest() for output in outputs]

    first = [query(i) for i in range(count)]
    if flags.output:
        for i in range(len(first[0][1])):
            np.save(f"{flags.output}.{i}.npy", np.concatenate([outputs[i] for _, outputs in first]))
    digests = [digest(outputs) for _, outputs in first]
    described = [{"dtype": o.dtype.str, "shape": list(o.shape)} for o in first[0][1]]
    first_ns = first[0][0]
    del first
    times = [query(i)[0] for i in range(flags.warmup + flags.iterations)]
    repeat = not flags.iterations or [digest(query(i)[1]) for i in range(count)] == digests
    return {
        "samples": count,
        "threads": flags.threads,
        "load_ms": load_ns / 1e6,
        "first_ms": first_ns / 1e6,
        "warmup_ns": times[: flags.warmup],
        "query_ns": times[flags.warmup :],
        "outputs_repeat": repeat,
        "rss_peak_mib": _rss_peak_mib(),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "outputs": described,
    }


def _cores(text: str) -> set[int]:
    spans = [part.split("-") for part in text.split(",")]
    return {core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)}


def _samples(np: Any, path: str, info: Any) -> Any:
    """The file's samples `[N, *shape of the input]`, from `.npy` or raw little-endian."""
    shape = [size if isinstance(size, int) else 1 for size in info.shape]
    element = np.dtype(_ELEMENTS[info.type])
    try:
        with Path(path).open("rb") as file:
            npy = file.read(6) == b"\x93NUMPY"
        data = np.load(path, allow_pickle=False) if npy else np.fromfile(path, element)
    except (OSError, ValueError) as error:
        raise RefusalError("input", f"input file {path} cannot be read: {error}") from error
    if data.dtype != element:
        raise RefusalError("input", f"input file {path} holds {data.dtype}, but {info.name} takes {element}")
    if npy and (data.ndim != len(shape) or list(data.shape[1:]) != shape[1:]):
        raise RefusalError("input", f"input file {path} has shape {data.shape}, but {info.name} has shape {shape}")
    size = int(np.prod(shape))
    if data.size == 0 or data.size % size:
        raise RefusalError(
            "input", f"input file {path} holds {data.size} values, but {info.name} takes {size} or a multiple"
        )
    return np.ascontiguousarray(data).reshape(-1, *shape)


def _rss_peak_mib() -> float | None:
    try:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")), None)
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
