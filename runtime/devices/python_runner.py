"""Runs one `.onnx` or `.tflite` file on a device that has Python and its library, and says how long each query took.

The twin of the native runner: the same flags with `--library` and `--setting`, the same JSON on standard output, the
same exit statuses. It is copied to the device, `reference/upstream/litert_2.py` beside it, and imports nothing else of
this package. Another library is one more class in `LIBRARIES`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_STATUS = {"flags": 2, "model": 3, "input": 4, "execution": 5}
_ELEMENTS = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class RefusalError(Exception):
    """An error of the runner's interface: its kind and one sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Input(NamedTuple):
    """An input of a model; its dtype by numpy's name."""

    name: str
    dtype: str
    shape: list[int]


class Engine(Protocol):
    """What runs a file, made with `(threads, settings)`; a missing package is an `ImportError`.

    `runtime` is its name and version; `errors` are what `load` and `run` raise where the file is at fault.
    """

    runtime: str
    errors: tuple[type[Exception], ...]

    def __init__(self, threads: int, settings: dict[str, str]) -> None: ...

    def load(self, model: str) -> list[Input]:
        """Open the file; its inputs."""

    def run(self, arrays: list[Any]) -> list[Any]:
        """One inference: an array per input to an array per output."""


class OnnxRuntime(Engine):
    """Runs an `.onnx`; settings are ONNX Runtime's own keys."""

    def __init__(self, threads: int, settings: dict[str, str]) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is loaded
        import onnxruntime

        self._ort = onnxruntime
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        # onnxruntime's exceptions have no common base of their own.
        state = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        self.errors = tuple(value for value in state if isinstance(value, type) and issubclass(value, Exception))
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        for key, value in settings.items():
            self._options.add_session_config_entry(key, value)

    def load(self, model: str) -> list[Input]:
        """Open the file; its inputs."""
        self._session = self._ort.InferenceSession(model, self._options, providers=["CPUExecutionProvider"])
        declared = self._session.get_inputs()
        self._names = [inp.name for inp in declared]
        return [
            Input(inp.name, _ELEMENTS[inp.type], [size if isinstance(size, int) else 1 for size in inp.shape])
            for inp in declared
        ]

    def run(self, arrays: list[Any]) -> list[Any]:
        """One inference."""
        outputs: list[Any] = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return outputs


class LiteRT(Engine):
    """Runs a `.tflite` that XNNPACK takes whole; there are no settings."""

    errors = (ValueError, RuntimeError)

    def __init__(self, threads: int, settings: dict[str, str]) -> None:
        from ai_edge_litert import interpreter

        self._interpreter_class = interpreter.Interpreter
        self.runtime = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
        self._threads = threads

    def load(self, model: str) -> list[Input]:
        """Open the file; its inputs."""
        self._interpreter = self._interpreter_class(model_path=model, num_threads=self._threads)
        self._interpreter.allocate_tensors()
        declared = self._interpreter.get_input_details()
        self._inputs = [inp["index"] for inp in declared]
        self._outputs = [out["index"] for out in self._interpreter.get_output_details()]
        rule = runpy.run_path(str(Path(__file__).with_name("litert_2.py")))
        if left := rule["undelegated"](self._interpreter, self._outputs):
            raise ValueError(f"{left}. {rule['ADVICE']}")
        return [Input(inp["name"], inp["dtype"].__name__, inp["shape"].tolist()) for inp in declared]

    def run(self, arrays: list[Any]) -> list[Any]:
        """One inference."""
        for index, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


LIBRARIES: dict[str, type[Engine]] = {"onnxruntime": OnnxRuntime, "litert": LiteRT}


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
    parser.add_argument("--library", required=True, choices=sorted(LIBRARIES))
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

        library = LIBRARIES[flags.library](flags.threads, dict(setting.split("=", 1) for setting in flags.setting))
    except ImportError as error:
        raise RefusalError(
            "execution",
            f"this device's python ({sys.executable}) cannot run this: {error}. Install {flags.library}",
        ) from error
    start = time.perf_counter_ns()
    try:
        declared = library.load(flags.model)
    except library.errors as error:
        raise RefusalError("model", f"model {flags.model} cannot be loaded: {error}") from error
    load_ns = time.perf_counter_ns() - start

    if len(declared) != len(flags.input):
        raise RefusalError(
            "input", f"the model has {len(declared)} inputs, but {len(flags.input)} --input files were given"
        )
    samples = [_samples(np, path, info) for path, info in zip(flags.input, declared, strict=True)]
    count = len(samples[0]) if samples else 1
    if any(len(s) != count for s in samples):
        raise RefusalError("input", f"the input files hold different numbers of samples: {[len(s) for s in samples]}")
    feeds = [[s[i] for s in samples] for i in range(count)]

    def query(index: int) -> tuple[int, list[Any]]:
        os.getppid()  # marks where an inference starts and ends, for native/instructions.c
        begin = time.perf_counter_ns()
        try:
            outputs = library.run(feeds[index % count])
        except library.errors as error:
            raise RefusalError("execution", f"the model failed: {error}") from error
        end = time.perf_counter_ns()
        os.getppid()
        return end - begin, outputs

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
        "runtime": library.runtime,
        "outputs": described,
    }


def _cores(text: str) -> set[int]:
    spans = [part.split("-") for part in text.split(",")]
    return {core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)}


def _samples(np: Any, path: str, info: Input) -> Any:
    """The file's samples `[N, *shape of the input]`, from `.npy` or raw little-endian."""
    shape = info.shape
    element = np.dtype(info.dtype).newbyteorder("<")
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
