"""Stands in for the process that asks Core ML: its protocol, with the evaluator where Core ML would be.

No Mac is behind it: its times and its plan are made up. The first argument says how it behaves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.coreml.predict import (
    INPUTS_FILE,
    OUTPUTS_FILE,
    Host,
    PredictionReply,
    PredictionRequest,
)
from litehrnet_stage2.runtime.latency.result import PlannedOperation


def answer(request: PredictionRequest) -> None:
    """Evaluate every image, and reply."""
    program = MilProgram.load(Path(request.package))
    with np.load(Path(request.folder, INPUTS_FILE)) as inputs:
        given = dict(inputs)
    images = range(len(next(iter(given.values()))))
    found = [evaluate(program, {name: x[i : i + 1] for name, x in given.items()}) for i in images]
    outputs = {name: np.concatenate([y[name] for y in found]).astype(np.float32) for name in request.outputs}
    np.savez(Path(request.folder, OUTPUTS_FILE), **outputs)
    reply = PredictionReply(
        compile_ms=4.0,
        load_ms=3.0,
        first_ms=2.0,
        samples_ms=(1.0,) * request.queries,
        warmup_queries=20,
        steady=True,
        repeats=True,
        plan=(PlannedOperation(operator="conv", output="y1", preferred="ne", supported=("cpu", "ne"), cost=0.5),),
        thermal_before="nominal",
        thermal_after="fair",
        host=Host(model="a stand-in", chip="none", macos="0", os_build="0", coremltools="0"),
    )
    print(json.dumps(dataclasses.asdict(reply)))


def main() -> None:
    request = PredictionRequest(**json.load(sys.stdin))
    behaviour = sys.argv[1]
    match behaviour:
        case "answers":
            answer(request)
        case "dies":
            print("about to die", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case "dies on the Neural Engine":
            if request.unit == "cpu+ne":
                os.kill(os.getpid(), signal.SIGABRT)
            answer(request)
        case "hangs":
            time.sleep(60)
        case "gives up":
            sys.exit("no such device")
        case "refuses":
            print(json.dumps({"error": "the model cannot be compiled"}))
        case "babbles":
            print("Hello from a library\n{}")
        case "leaves something out":
            print(json.dumps({"load_ms": 1.0}))
        case "forgets the outputs":
            answer(request)
            Path(request.folder, OUTPUTS_FILE).unlink()
        case "forgets an image":
            answer(request)
            path = Path(request.folder, OUTPUTS_FILE)
            with np.load(path) as arrays:
                fewer = {name: arrays[name][1:] for name in arrays.files}
            np.savez(path, **fewer)
        case _:
            raise ValueError(behaviour)


if __name__ == "__main__":
    main()
