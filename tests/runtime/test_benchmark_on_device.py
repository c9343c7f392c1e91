"""The benchmark on a device: latency where time is real, instructions where it is emulated, parity on both."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from litehrnet_stage2.apps.reporting import terminal
from litehrnet_stage2.runtime.bundle import Bundle, BundleError
from litehrnet_stage2.runtime.devices import (
    CPU_MODELS,
    CoreKind,
    Device,
    DeviceFacts,
    EmulatedDevice,
    NativeRun,
    local_device,
)
from litehrnet_stage2.runtime.devices.transport import LocalTransport
from litehrnet_stage2.runtime.latency import Plan, Run, bundle_candidates, measure, tier_named
from litehrnet_stage2.runtime.latency.lanes.remote import DeviceLane

QUICK = Plan(tier=tier_named("quick"), processes=2)
FIVE = Plan(tier=tier_named("quick"), processes=5)


@pytest.mark.usefixtures("runner")
def test_a_real_device_has_latencies_from_fresh_processes_and_parity(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch", "onnxruntime"], threads=[1])
    with local_device() as device:
        run = measure(DeviceLane(bundle, device, QUICK), candidates)
    for candidate in run.candidates:
        assert candidate.failure is None
        assert candidate.parity_after is not None
        assert sum(output.mismatches for output in candidate.parity_after.values()) == 0
        assert candidate.latency is not None
        assert candidate.latency.queries == 64
        assert len(candidate.latency.samples_ms) == 2
        assert candidate.cold is not None
        assert len(candidate.cold.load_ms) == 2
        assert candidate.memory is not None
        assert candidate.memory.rss_before_load_mib is None  # nothing measures it there
        assert {"waiting for a core", "drift"} <= set(run.validity.unknown)


@pytest.mark.usefixtures("arm_runner")
def test_an_emulated_device_has_instructions_and_no_latency(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[1])
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as device:
        run = measure(DeviceLane(bundle, device, QUICK), candidates)
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
    wrong = dataclasses.replace(golden, outputs={**golden.outputs, "y1": golden.outputs["y1"] ^ 1})

    class Other(Bundle):
        def golden(self):
            return wrong

    with local_device() as device:
        run = measure(DeviceLane(Other(bundle.folder, bundle.manifest), device, QUICK), [candidate])
    assert run.candidates[0].latency is None
    assert "codes differ from the golden ones" in str(run.candidates[0].failure)


def test_an_artifact_changed_since_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    opened = Bundle.open(folder)
    candidates = bundle_candidates(opened, runtimes=["executorch"], threads=[1])
    Path(candidates[0].path).write_bytes(b"other")
    with local_device() as device, pytest.raises(BundleError, match="was changed since"):
        measure(DeviceLane(opened, device, QUICK), candidates)


def test_threads_on_an_emulated_device_are_refused(bundle: Bundle) -> None:
    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[2])
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as device, pytest.raises(ValueError, match="one thread"):
        measure(DeviceLane(bundle, device, QUICK), candidates)


class Board(Device):
    """A device whose processes take what they are told to: `medians` in ms, by process."""

    def __init__(self, bundle: Bundle, medians: tuple[float, ...], **facts: object) -> None:
        super().__init__("board", LocalTransport())
        self._bundle, self._medians = bundle, iter(medians)
        self._facts = {"arch": "aarch64", "cores": (CoreKind(name="Cortex-A76", part="", cores=(0, 1, 2, 3)),), **facts}

    def facts(self) -> DeviceFacts:
        return DeviceFacts(device="board", emulated=False, **self._facts)  # type: ignore[arg-type]

    def run(self, library: str, artifact: Path, inputs: np.ndarray, **options: object) -> NativeRun:
        ns = int(next(self._medians) * 1e6)
        golden = self._bundle.golden()
        return NativeRun(
            outputs=tuple(
                spec.quantization.dequantize(golden.outputs[spec.name]) for spec in self._bundle.manifest.outputs
            ),
            load_ms=1.0,
            first_ms=2.0,
            warmup_ns=(ns,) * 40,
            query_ns=(ns,) * 13,
            outputs_repeat=True,
            rss_peak_mib=20.0,
            threads=1,
            cpu_features=(),
            affinity=(),
            runtime="executorch 1.5.1",
            facts=self.facts(),
        )


def on_board(bundle: Bundle, *medians: float, plan: Plan = FIVE, **facts: object) -> Run:
    """What a board with such processes gets."""
    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[1])
    with Board(bundle, medians, **facts) as device:
        return measure(DeviceLane(bundle, device, plan), candidates)


def test_processes_that_disagree_are_as_invalid_on_a_device_as_here(bundle: Bundle) -> None:
    run = on_board(bundle, 4.0, 4.0, 4.0, 5.2, 5.2)
    assert not run.validity.valid
    assert run.validity.ratio_reasons == run.validity.reasons  # they did not alternate in short turns
    said = " ".join(run.validity.reasons)
    assert "the medians of one candidate's processes spread by 30% at worst" in said
    assert "latencies drifted by +30%" in said


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"load_1min": 6.0}, "the machine was loaded: 1.50 per core"),
        ({"thermal_status": 3}, "the system reports the thermal state severe"),
    ],
)
def test_a_hot_or_loaded_device_is_not_valid(bundle: Bundle, facts: dict[str, object], why: str) -> None:
    run = on_board(bundle, 4.0, 4.0, 4.0, 4.0, 4.0, **facts)
    assert [reason for reason in run.validity.reasons if why in reason]


def test_a_device_whose_clock_moves_is_not_valid(bundle: Bundle) -> None:
    class Moving(Board):
        clock = 2400.0

        def facts(self) -> DeviceFacts:
            self.clock -= 50
            return dataclasses.replace(super().facts(), frequency_mhz=self.clock)

    candidates = bundle_candidates(bundle, runtimes=["executorch"], threads=[1])
    with Moving(bundle, (4.0,) * 5) as device:
        run = measure(DeviceLane(bundle, device, FIVE), candidates)
    assert any("the clock moved by" in reason for reason in run.validity.reasons)


def test_what_a_device_does_not_show_is_said_to_be_unknown(bundle: Bundle) -> None:
    run = on_board(bundle, 4.0, 4.0, 4.0, 4.0, 4.0)
    assert run.validity.valid
    assert run.validity.unknown == ("load", "waiting for a core", "clock", "throttling", "temperature")
    said = io.StringIO()
    terminal.show(run, Console(file=said, width=200))
    assert "Not shown by this machine, so not judged: load, waiting for a core, clock" in said.getvalue()
    memory = run.candidates[0].memory
    assert memory is not None
    assert (memory.rss_before_load_mib, memory.rss_peak_mib) == (None, 20.0)


def test_cores_are_checked_against_the_device_they_are_for(bundle: Bundle) -> None:
    asked = dataclasses.replace(FIVE, affinity=(3,))  # of four cores there, whatever this machine has
    assert on_board(bundle, 4.0, 4.0, 4.0, 4.0, 4.0, plan=asked).candidates[0].latency is not None
    with pytest.raises(ValueError, match=r"board has no core 4 \(it has: 0, 1, 2, 3\)"):
        on_board(bundle, plan=dataclasses.replace(FIVE, affinity=(4,)))
