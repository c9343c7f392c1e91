"""Predictions by Core ML in a process of its own: on some compute units it can kill the process that asks.

The process gets a request as JSON on its standard input and the inputs as a file; it leaves the outputs as
a file and its reply as JSON on its standard output. What can go wrong with it ends as one sentence that names
the compute unit.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.array_files import read_npz
from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse
from litehrnet_stage2.reference.errors import InputError, Stage2Error, printable
from litehrnet_stage2.runtime.child import PYTHON, ChildError, as_text, run_bounded
from litehrnet_stage2.runtime.latency.result import PlannedOperation
from litehrnet_stage2.runtime.program import Array

UNITS = {"cpu": "CPU_ONLY", "cpu+gpu": "CPU_AND_GPU", "cpu+ne": "CPU_AND_NE", "all": "ALL"}
"""The sets of compute units, and what coremltools calls them; `cpu` is the one to compare first."""

WORKER = (*PYTHON, "-m", "litehrnet_stage2.runtime.coreml.predict_worker")
LONGEST_S = 300.0
INPUTS_FILE, OUTPUTS_FILE = "inputs.npz", "outputs.npz"


class PredictionError(Stage2Error):
    """Core ML gave no outputs on a set of compute units, which the message names."""


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """What the process has to do.

    Attributes:
        package: the `.mlpackage`.
        unit: a key of `UNITS`.
        folder: holds the inputs, an array for each by name, and gets the outputs.
        outputs: names of those that are wanted.
        queries, seconds: at least so many timed predictions, for at least so long; 0 and 0 for none.
    """

    package: str
    unit: str
    folder: str
    outputs: tuple[str, ...]
    queries: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine that predicts."""

    model: str
    chip: str
    macos: str
    os_build: str
    coremltools: str


@dataclass(frozen=True, kw_only=True)
class PredictionReply:
    """What the process reports.

    Attributes:
        compile_ms: from the package to a compiled model, as Xcode does when an app is built.
        load_ms: from the compiled model to one that predicts.
        first_ms: the first prediction; on the Neural Engine it compiles once more.
        samples_ms: predictions after the warm-up, each with what coremltools does around it.
        warmup_queries, steady: the warm-up's length, and whether two windows' medians agreed in the end.
        repeats: whether the golden inputs gave the same bytes again after the timing; None without timing.
        plan: by operator; None where the system is too old to tell (before macOS 14.4).
        thermal_before, thermal_after: the system's thermal state: nominal, fair, serious or critical.
    """

    compile_ms: float
    load_ms: float
    first_ms: float
    samples_ms: tuple[float, ...]
    warmup_queries: int
    steady: bool
    repeats: bool | None
    plan: tuple[PlannedOperation, ...] | None
    thermal_before: str
    thermal_after: str
    host: Host


@dataclass(frozen=True)
class MacPrediction:
    """Outputs float32 `[N,...]` by name, and what the process reported."""

    outputs: Mapping[str, NDArray[np.float32]]
    reply: PredictionReply


def predict(
    package: Path,
    unit: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    queries: int = 0,
    seconds: float = 0.0,
    worker: Sequence[str] = WORKER,
    timeout_s: float = LONGEST_S,
) -> MacPrediction:
    """Predict the named outputs of named inputs `[N,C,H,W]`, image by image, in a fresh process.

    An input is float32, or uint8 where Core ML takes an image.

    Raises:
        ValueError: an unknown compute unit.
        PredictionError: the process was killed, took too long, or did not reply as it should.
    """
    if unit not in UNITS:
        raise InputError(f"unknown compute unit {unit!r}: they are {', '.join(UNITS)}")
    with tempfile.TemporaryDirectory(prefix="litehrnet-stage2-") as folder:
        np.savez(Path(folder, INPUTS_FILE), **inputs)  # type: ignore[arg-type]  # numpy's stub
        request = PredictionRequest(
            package=str(package), unit=unit, folder=folder, outputs=tuple(outputs), queries=queries, seconds=seconds
        )
        answer = _ask(request, worker, timeout_s + seconds)
        try:
            reply = decode(PredictionReply, answer)
            arrays = read_npz(Path(folder, OUTPUTS_FILE))
            found = {name: arrays[name] for name in outputs}
        except (KeyError, ValueError, OSError) as error:
            raise PredictionError(f"Core ML on {unit}: its process's reply is malformed ({error!r})") from error
    images = len(next(iter(inputs.values())))
    if wrong := [name for name, y in found.items() if y.dtype != np.float32 or len(y) != images]:
        y = found[wrong[0]]
        raise PredictionError(
            f"Core ML on {unit}: its process's reply is malformed "
            f"(`{wrong[0]}` is {y.dtype} {list(y.shape)} for {images} images)"
        )
    return MacPrediction(found, reply)


def _ask(request: PredictionRequest, worker: Sequence[str], timeout_s: float) -> Any:
    where = f"Core ML on {request.unit}"
    try:
        done = run_bounded(worker, timeout_s=timeout_s, stdin=json.dumps(dataclasses.asdict(request)).encode())
    except ChildError as error:
        raise PredictionError(f"{where}: {error}: use another compute unit") from error
    said = as_text(done.stderr).strip().rpartition("\n")[2][-1000:] or "nothing"
    if done.status < 0:
        raise PredictionError(
            f"{where}: its process was killed by {_signal(-done.status)} and said last: {said}; "
            "use another compute unit, `cpu` first"
        )
    if done.status:
        raise PredictionError(f"{where}: its process ended with status {done.status} and said last: {said}")
    try:
        answer = parse(done.stdout)
    except CodecError as error:
        start = as_text(done.stdout[:60])
        raise PredictionError(f"{where}: its process's reply is malformed, it begins {start!r}") from error
    if isinstance(answer, dict) and "error" in answer:
        raise PredictionError(f"{where}: {printable(str(answer['error']))[:2000]}")
    return answer


def _signal(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
