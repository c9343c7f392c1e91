"""Networks and operators of other kinds than Stage2 on emulated Arm CPUs: the golden codes, whatever its kernels are.

A library takes longer to start under the emulator than all of them to run, so they run as one function.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from single_operators import ROWS, settled

from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import assemble, freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice
from litehrnet_stage2.runtime.programs.device_program import DeviceProgram

pytestmark = pytest.mark.usefixtures("arm_runner", "arm_python")

WITH_CODES = {name: row for name, row in DEVICE_RUNTIMES.items() if row.artifact and row.artifact.border.codes}


@dataclass(frozen=True)
class Case:
    """A function, and codes of each of its inputs."""

    function: IntegerFunction
    codes: tuple[Codes, ...]


def joined(cases: Sequence[Case]) -> Case:
    """All of them as one, each with inputs and outputs of its own."""
    nodes, quantization, shapes, outputs = [], {}, {}, {}
    for number, case in enumerate(cases):
        function = case.function
        names = {name: f"{name}_{number}" for name in function.tensors}
        nodes += [
            dataclasses.replace(node, name=names[node.name], inputs=tuple(names[name] for name in node.inputs))
            for node in function.nodes
        ]
        quantization.update({names[name]: q for name, q in function.quantization.items()})
        shapes.update({names[name]: function.tensors[name].shape for name in function.inputs})
        outputs.update({f"{output}_{number}": names[tensor] for output, tensor in function.outputs.items()})
    function = assemble("joined", shapes, outputs, nodes, quantization)
    return Case(function, tuple(codes for case in cases for codes in case.codes))


def check(cases: Sequence[Case], runtime: str, cpus: Sequence[str], folder: Path) -> None:
    """A runtime's artifact of them, with codes at its border, gives the golden codes on each CPU."""
    artifact = WITH_CODES[runtime].artifact
    assert artifact is not None
    convert = importlib.import_module(f"litehrnet_stage2.converters.{artifact.converter}").convert
    case, path = joined(cases), folder / artifact.file("joined")
    convert(case.function, path, Deployment())
    due = golden.evaluate(case.function, *case.codes)
    for cpu in cpus:
        with EmulatedDevice(CPU_MODELS[cpu]) as device:
            program = DeviceProgram(device, artifact.library, path, threads=1)
            bordered = BorderProgram(program, *border_specs(case.function), artifact.border)
            found = bordered.to_codes(bordered.run(bordered.from_codes(*case.codes)))
        mismatches = {name: int((y != due[name]).sum()) for name, y in zip(due, found, strict=True)}
        assert mismatches == dict.fromkeys(due, 0), cpu


@pytest.fixture(scope="module")
def networks() -> list[Case]:
    """Each of the small networks with random weights, and with trained ones."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    codes = np.random.default_rng(0).integers(-128, 128, (2, 3, 32, 32)).astype(np.int8)
    return [
        Case(freeze(quantize(weigh(kind(), images.float() / 255), images).calibrate(images))[0], (codes,))
        for kind in small_networks.NETWORKS.values()
        for weigh in small_networks.WEIGHTS.values()
    ]


@pytest.mark.parametrize("runtime", WITH_CODES)
def test_networks_give_the_golden_codes_on_two_cpus(runtime: str, networks: list[Case], tmp_path: Path) -> None:
    """With SDOT and without."""
    check(networks, runtime, ["cortex-a76", "cortex-a72"], tmp_path)


@pytest.mark.parametrize("runtime", WITH_CODES)
def test_each_operator_gives_the_golden_codes(runtime: str, tmp_path: Path) -> None:
    check([Case(settled(row), row.inputs) for row in ROWS.values()], runtime, ["cortex-a76"], tmp_path)
