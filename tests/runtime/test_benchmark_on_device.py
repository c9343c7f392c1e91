"""The benchmark on a device: latency where time is real, instructions where it is emulated, parity on both."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from litehrnet_stage2.runtime.bundle import Bundle, BundleError
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice, local_device
from litehrnet_stage2.runtime.latency import Settings, bundle_candidates, tier_named
from litehrnet_stage2.runtime.latency.on_device import run_on_device

QUICK = Settings(tier=tier_named("quick"), processes=2)


@pytest.mark.usefixtures("runner")
def test_a_real_device_has_latencies_from_fresh_processes_and_parity(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch", "onnxruntime"], threads=[1])
    with local_device() as device:
        run = run_on_device(bundle, device, candidates, QUICK)
    for candidate in run.candidates:
        assert candidate.failure is None
        assert candidate.parity_after is not None
        assert sum(output.mismatches for output in candidate.parity_after.values()) == 0
        assert candidate.latency is not None
        assert candidate.latency.queries == 64
        assert len(candidate.latency.samples_ms) == 2
        assert candidate.cold is not None
        assert len(candidate.cold.load_ms) == 2


@pytest.mark.usefixtures("arm_runner")
def test_an_emulated_device_has_instructions_and_no_latency(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[1])
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as device:
        run = run_on_device(bundle, device, candidates, QUICK)
    (candidate,) = run.candidates
    assert run.machine.emulated
    assert candidate.latency is None
    assert candidate.cold is None
    assert candidate.instructions is not None
    assert candidate.instructions.per_inference > 100_000


@pytest.mark.usefixtures("runner")
def test_an_artifact_with_other_codes_gets_no_number(bundle: Bundle, other_bundle: Path) -> None:
    (candidate,) = bundle_candidates(bundle, runtimes=["executorch"], threads=[1])
    golden = bundle.golden()
    wrong = dataclasses.replace(golden, y1=golden.y1 ^ 1)

    class Other(Bundle):
        def golden(self):
            return wrong

    with local_device() as device:
        run = run_on_device(Other(bundle.folder, bundle.manifest), device, [candidate], QUICK)
    assert run.candidates[0].latency is None
    assert "codes differ from the golden ones" in str(run.candidates[0].failure)


def test_an_artifact_changed_since_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    opened = Bundle.open(folder)
    candidates = bundle_candidates(opened, runtimes=["executorch"], threads=[1])
    Path(candidates[0].path).write_bytes(b"other")
    with local_device() as device, pytest.raises(BundleError, match="was changed since"):
        run_on_device(opened, device, candidates, QUICK)


def test_threads_on_an_emulated_device_are_refused(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[2])
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as device, pytest.raises(ValueError, match="one thread"):
        run_on_device(bundle, device, candidates, QUICK)
