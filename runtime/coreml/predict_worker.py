"""The process that asks Core ML: compiles, loads and predicts on one set of compute units, and says how it went.

`python -m litehrnet_stage2.runtime.coreml.predict_worker` on a Mac, a `PredictionRequest` as JSON on standard input.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from litehrnet_stage2.reference.array_files import read_npz
from litehrnet_stage2.reference.contract.codec import decode, parse
from litehrnet_stage2.runtime.coreml import mac_facts
from litehrnet_stage2.runtime.coreml.predict import (
    INPUTS_FILE,
    OUTPUTS_FILE,
    UNITS,
    PredictionReply,
    PredictionRequest,
)
from litehrnet_stage2.runtime.latency.result import PlannedOperation
from litehrnet_stage2.runtime.latency.sampling import elapsed_ms, samples_ms, warm_up
from litehrnet_stage2.runtime.program import Array

MISTAKES = (ValueError, OSError, RuntimeError)
"""What coremltools raises when Core ML refuses; anything else is a defect and ends with its traceback."""

DEVICES = {"MLCPUComputeDevice": "cpu", "MLGPUComputeDevice": "gpu", "MLNeuralEngineComputeDevice": "ne"}
PLAN_SINCE = (14, 4)  # of macOS

Named = Mapping[str, Array]


def serve(request: PredictionRequest) -> PredictionReply:
    """Do what is asked; the outputs go to the request's folder."""
    import coremltools as ct

    inputs = read_npz(Path(request.folder, INPUTS_FILE))
    first = fed(inputs, 0)
    units = ct.ComputeUnit[UNITS[request.unit]]
    before = mac_facts.thermal_state()
    with tempfile.TemporaryDirectory(prefix="litehrnet-stage2-") as folder:
        compiled, compile_ms = _timed(
            lambda: ct.utils.compile_model(request.package, str(Path(folder, "stage2.mlmodelc")))
        )
        model, load_ms = _timed(lambda: ct.models.CompiledMLModel(compiled, compute_units=units))
        run = model.predict
        _, first_ms = _timed(partial(run, first))
        outputs = _outputs(run, inputs, request.outputs)
        np.savez(Path(request.folder, OUTPUTS_FILE), **outputs)  # type: ignore[arg-type]  # numpy's stub
        warmup, steady, samples, repeats = 0, False, [], None
        if request.queries or request.seconds:
            warmup, steady = warm_up(partial(run, first))
            samples = samples_ms(partial(run, first), queries=request.queries, seconds=request.seconds)
            again = _outputs(run, inputs, request.outputs)
            repeats = all(np.array_equal(again[name], outputs[name]) for name in request.outputs)
        plan = _plan(compiled, units) if mac_facts.version() >= PLAN_SINCE else None
    return PredictionReply(
        compile_ms=compile_ms,
        load_ms=load_ms,
        first_ms=first_ms,
        samples_ms=tuple(samples),
        warmup_queries=warmup,
        steady=steady,
        repeats=repeats,
        plan=plan,
        thermal_before=before,
        thermal_after=mac_facts.thermal_state(),
        host=mac_facts.host(),
    )


def main() -> None:
    """Entry point of the process."""
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the reply
    request = decode(PredictionRequest, parse(sys.stdin.read()))
    answer: dict[str, Any]
    if platform.system() != "Darwin":
        answer = {"error": f"Core ML predicts on macOS only, and this is {platform.system()}"}
    else:
        try:
            answer = dataclasses.asdict(serve(request))
        except MISTAKES as error:
            answer = {"error": " ".join(str(error).split())}
    json.dump(answer, reply)
    reply.close()


def fed(inputs: Named, index: int) -> dict[str, Any]:
    """What coremltools takes of one image of each input: an array, or of uint8 `[N,C,H,W]` a PIL image, RGB or grey."""
    return {name: as_image(x[index]) if x.dtype == np.uint8 else x[index : index + 1] for name, x in inputs.items()}


def as_image(pixels: Array) -> Any:
    """The PIL image of pixels uint8 `[C,H,W]`: of mode `RGB` where there are 3 channels, `L` where there is one."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def _outputs(run: Callable[[dict[str, Any]], Named], inputs: Named, names: Sequence[str]) -> Named:
    images = range(len(next(iter(inputs.values()))))
    found = [run(fed(inputs, i)) for i in images]
    return {name: np.concatenate([np.asarray(y[name], np.float32) for y in found]) for name in names}


def _plan(compiled: str, units: Any) -> tuple[PlannedOperation, ...]:
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(compiled, compute_units=units)
    planned = []
    for operation in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
        if usage is None and cost is None:  # constants
            continue
        planned.append(
            PlannedOperation(
                operator=operation.operator_name,
                output=operation.outputs[0].name,
                preferred=_device(usage.preferred_compute_device) if usage else None,
                supported=tuple(_device(device) for device in usage.supported_compute_devices) if usage else (),
                cost=cost.weight if cost else None,
            )
        )
    return tuple(planned)


def _device(device: Any) -> str:
    name = type(device).__name__
    return DEVICES.get(name, name)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and how many ms it took."""
    start = time.perf_counter_ns()
    result = call()
    return result, elapsed_ms(start)


if __name__ == "__main__":
    main()
