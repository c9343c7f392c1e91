"""The Core ML delegate inside a `.pte`: the Neural Engine's package, and nothing that only a profiler reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executorch.exir._serialize._program import deserialize_pte_binary

from litehrnet_stage2.converters.to_executorch_coreml import _repack, unpack
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate


def plan_and_blobs(bundle: Path) -> tuple[Any, list[bytes]]:
    program = deserialize_pte_binary((bundle / "stage2-coreml.pte").read_bytes()).program
    return program.execution_plan[0], [bytes(entry.data) for entry in program.backend_delegate_data]


@pytest.fixture
def package(apple_bundle: Path, tmp_path: Path) -> Path:
    """The package that the `.pte` of the bundle holds, unpacked."""
    _, (blob,) = plan_and_blobs(apple_bundle)
    return unpack(blob, tmp_path)


def test_the_program_is_one_call_of_one_core_ml_delegate(apple_bundle: Path) -> None:
    plan, blobs = plan_and_blobs(apple_bundle)
    assert [delegate.id for delegate in plan.delegates] == ["CoreMLBackend"]
    (chain,) = plan.chains
    assert [type(instruction.instr_args).__name__ for instruction in chain.instructions] == ["DelegateCall"]
    assert len(blobs) == 1


def test_the_delegate_computes_what_the_package_for_the_neural_engine_does(apple_bundle: Path, package: Path) -> None:
    inside, ane = MilProgram.load(package), MilProgram.load(apple_bundle / "stage2-ane.mlpackage")
    counts = inside.operator_counts()
    assert counts.pop("cast") == 1  # float32 features to float16; the package takes float16
    assert counts == ane.operator_counts()
    card = json.loads((package.parent / "metadata.json").read_text())
    for image in Bundle.open(apple_bundle).golden().x:
        found = evaluate(inside, {card["inputNames"][0]: image[None]})
        wanted = evaluate(ane, {"features": image[None]})
        for name, output in zip(card["outputNames"], ("y1", "y2"), strict=True):
            np.testing.assert_array_equal(found[name], wanted[output])


def test_the_debug_information_is_left_out(package: Path) -> None:
    names = sorted(path.name for path in package.parent.rglob("*") if path.is_file())
    assert names == ["Manifest.json", "metadata.json", "model.mlmodel", "weight.bin"]


def test_devices_can_tell_programs_apart_by_their_identifier(package: Path) -> None:
    """Compiled models are kept by it: it follows the content."""
    card = package.parent / "metadata.json"
    first = json.loads(card.read_text())["identifier"]
    _repack(package)
    assert json.loads(card.read_text())["identifier"] == first
    weights = package / "Data/com.apple.CoreML/weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    _repack(package)
    assert json.loads(card.read_text())["identifier"] != first
