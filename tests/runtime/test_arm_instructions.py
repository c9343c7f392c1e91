"""The cost of each artifact on a Cortex-A76, held against the committed count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.converters.write_bundle import write_bundle
from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice
from litehrnet_stage2.runtime.latency import read_result
from litehrnet_stage2.runtime.programs.device_program import device_program, open_device_session

COMMITTED = Path(__file__).parents[2] / "benchmarks" / "arm_instructions.json"
MOST_GROWTH = 1.02
TARGETS = [row.artifact.name for row in DEVICE_RUNTIMES.values() if row.artifact]


@pytest.fixture(scope="module")
def full_size(frozen, trained, photographs, tmp_path_factory) -> Bundle:
    function, proof = frozen

    def zeros(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.zeros((len(x), *function.tensors[name].shape[1:]), np.float32) for name in function.outputs.values()]

    folder = tmp_path_factory.mktemp("full") / "bundle"
    write_bundle(function, proof, photographs[:1], folder, float_network=zeros, targets=TARGETS)
    return Bundle.open(folder)


@pytest.mark.usefixtures("arm_runner", "arm_python")
@pytest.mark.parametrize("runtime", DEVICE_RUNTIMES)
def test_no_artifact_costs_more_instructions_than_committed(runtime: str, full_size: Bundle) -> None:
    (run,) = read_result(COMMITTED).runs
    (committed,) = (c.instructions.per_inference for c in run.candidates if c.name == runtime and c.instructions)
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as device, open_device_session(full_size, runtime, device) as session:
        counted = (
            device_program(session)
            .count_instructions(session.program.prepare(full_size.golden().x[:1]), queries=1)
            .per_inference
        )
    assert counted <= MOST_GROWTH * committed, f"{counted / 1e6:.2f} M instructions, {committed / 1e6:.2f} M committed"
