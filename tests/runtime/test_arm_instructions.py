"""The cost of each artifact on emulated Arm CPUs, held against the committed counts: Stage2, and a whole network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.apps.landmarks.whole import convert_landmarks
from litehrnet_stage2.converters.write_bundle import write_bundle
from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice
from litehrnet_stage2.runtime.latency import read_result
from litehrnet_stage2.runtime.programs.device_program import device_program, open_device_session

pytestmark = pytest.mark.usefixtures("arm_runner", "arm_python")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MOST_GROWTH = 1.02
TARGETS = [row.artifact.name for row in DEVICE_RUNTIMES.values() if row.artifact]
WITH_CODES = [name for name, row in DEVICE_RUNTIMES.items() if row.artifact and row.artifact.border.codes]


def check(bundle: Bundle, runtime: str, result: str) -> None:
    """An artifact takes no more instructions than a committed result says, on the CPU that it says."""
    (run,) = read_result(BENCHMARKS / result).runs
    (committed,) = (c.instructions.per_inference for c in run.candidates if c.name == runtime and c.instructions)
    cpu = CPU_MODELS[run.machine.device.removeprefix("emulated:")]
    with EmulatedDevice(cpu) as device, open_device_session(bundle, runtime, device) as session:
        inputs = session.program.prepare(*(x[:1] for x in bundle.golden().real))
        counted = device_program(session).count_instructions(inputs, queries=1).per_inference
    assert counted <= MOST_GROWTH * committed, f"{counted / 1e6:.2f} M instructions, {committed / 1e6:.2f} M committed"


@pytest.fixture(scope="module")
def full_size(frozen, trained, photographs, tmp_path_factory) -> Bundle:
    function, proof = frozen

    def zeros(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.zeros((len(x), *function.tensors[name].shape[1:]), np.float32) for name in function.outputs.values()]

    folder = tmp_path_factory.mktemp("full") / "bundle"
    write_bundle(function, proof, photographs[:1], folder, float_network=zeros, targets=TARGETS)
    return Bundle.open(folder)


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("landmarks") / "bundle"
    convert_landmarks(folder, targets=TARGETS)
    return Bundle.open(folder)


@pytest.mark.parametrize("runtime", DEVICE_RUNTIMES)
def test_stage2_costs_no_more_than_committed(runtime: str, full_size: Bundle) -> None:
    check(full_size, runtime, "arm_instructions.json")


@pytest.mark.parametrize("runtime", WITH_CODES)
def test_stage2_costs_no_more_than_committed_with_i8mm(runtime: str, full_size: Bundle) -> None:
    check(full_size, runtime, "arm_instructions_i8mm.json")


@pytest.mark.parametrize("runtime", DEVICE_RUNTIMES)
def test_a_whole_network_costs_no_more_than_committed(runtime: str, landmarks: Bundle) -> None:
    check(landmarks, runtime, "arm_instructions_whole_network.json")
