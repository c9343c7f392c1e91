"""Emulated Arm CPUs: the same codes as golden on each, instruction counts that repeat, and no times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import (
    CPU_MODELS,
    DeviceError,
    EmulatedDevice,
    MissingToolError,
    RunnerBuild,
    RunnerError,
    prepare_emulation,
)
from litehrnet_stage2.runtime.devices.emulation import ArmPython, emulator, qemu_program
from litehrnet_stage2.runtime.parity import check_parity
from litehrnet_stage2.runtime.programs.device_program import device_program, open_device_session

EXPECTED_FEATURES = {
    "cortex-a72": ("asimd",),
    "cortex-a76": ("asimd", "asimddp"),
    "neoverse-n1": ("asimd", "asimddp"),
    "i8mm": ("asimd", "asimddp", "i8mm", "sve", "sve2"),
}


@pytest.fixture(scope="module", autouse=True)
def _tools(arm_runner: RunnerBuild) -> None:
    """Every test here runs an Arm program."""


@pytest.fixture(params=sorted(CPU_MODELS))
def device(request: pytest.FixtureRequest) -> Iterator[EmulatedDevice]:
    with EmulatedDevice(CPU_MODELS[request.param]) as opened:
        yield opened


@pytest.fixture
def a76() -> Iterator[EmulatedDevice]:
    with EmulatedDevice(CPU_MODELS["cortex-a76"]) as opened:
        yield opened


def test_pte_gives_the_golden_codes(device: EmulatedDevice, bundle: Bundle) -> None:
    with open_device_session(bundle, "executorch", device) as session:
        result = check_parity(session, bundle.golden())
    assert {name: output.mismatches for name, output in result.outputs.items()} == {"y1": 0, "y2": 0}
    assert result.codes_sha256 == bundle.manifest.golden_sha256


@pytest.mark.parametrize("name", ["cortex-a76", "i8mm"])
@pytest.mark.usefixtures("arm_python")
def test_onnx_gives_the_golden_codes(name: str, bundle: Bundle) -> None:
    with (
        EmulatedDevice(CPU_MODELS[name]) as device,
        open_device_session(bundle, "onnxruntime", device) as session,
    ):
        result = check_parity(session, bundle.golden())
        assert session.info.version == device.library_version("onnxruntime")
    assert result.codes_sha256 == bundle.manifest.golden_sha256


@pytest.mark.usefixtures("arm_python")
def test_codes_in_and_out_are_the_golden_codes_and_cost_less(a76: EmulatedDevice, codes_bundle: Bundle) -> None:
    golden = codes_bundle.golden()
    for runtime in (name for name, row in DEVICE_RUNTIMES.items() if row.artifact and row.artifact.border.codes):
        with open_device_session(codes_bundle, runtime, a76) as session:
            result = check_parity(session, golden)
        assert result.codes_sha256 == codes_bundle.manifest.golden_sha256
    with (
        open_device_session(codes_bundle, "executorch-codes", a76) as codes,
        open_device_session(codes_bundle, "executorch", a76) as floats,
    ):
        less, more = (
            device_program(session).count_instructions(session.program.prepare(golden.x)).per_inference
            for session in (codes, floats)
        )
    assert less < more


def test_nothing_behind_an_input_read_in_place_is_read(
    device: EmulatedDevice, in_place: Callable[[str, int], tuple[Path, np.ndarray]]
) -> None:
    """The runner has an inaccessible page there."""
    for border in ("codes", "float"):
        device.run("executorch", *in_place(border, 16))
    with pytest.raises(RunnerError, match="signal 11"):
        device.run("executorch", *in_place("codes", 4))


def test_no_time_is_reported(a76: EmulatedDevice, bundle: Bundle, pte: Path) -> None:
    run = a76.run("executorch", pte, bundle.golden().x[:1], warmup=1, iterations=2)
    assert run.facts.emulated
    assert (run.load_ms, run.first_ms, run.rss_peak_mib) == (None, None, None)
    assert (run.warmup_ns, run.query_ns) == ((), ())
    assert run.outputs_repeat


def test_the_cpu_has_the_instructions_its_facts_say(device: EmulatedDevice, pte: Path, sample: Path) -> None:
    facts = device.facts()
    assert facts.features == EXPECTED_FEATURES[device.cpu.name]
    assert not facts.has_sme
    # The runner asks the emulated kernel, the facts come from a table: they have to agree.
    seen = device.run("executorch", pte, np.load(sample)).cpu_features
    assert {feature for feature in seen if feature in EXPECTED_FEATURES["i8mm"]} == set(facts.features)


@pytest.mark.usefixtures("arm_python")
@pytest.mark.parametrize(("target", "library"), [("executorch", "executorch"), ("onnx", "onnxruntime")])
def test_instruction_counts_repeat_to_a_thousandth(
    a76: EmulatedDevice, bundle: Bundle, target: str, library: str
) -> None:
    artifact = bundle.folder / bundle.artifact(target)
    once, again = (a76.count_instructions(library, artifact, bundle.golden().x).per_inference for _ in range(2))
    assert once > 100_000
    assert again == pytest.approx(once, rel=0.001)


def test_more_work_counts_more_instructions(a76: EmulatedDevice, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    counts = []
    for layers in (1, 2):
        network = torch.nn.Sequential(*(torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(layers))).eval()
        exported = torch.export.export(network, (torch.zeros(1, 8, 32, 32),))
        program = exir.to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        (path := tmp_path / f"{layers}.pte").write_bytes(program.to_executorch().buffer)
        counts.append(a76.count_instructions("executorch", path, np.zeros((1, 8, 32, 32), np.float32)).per_inference)
    multiply_adds = 32 * 32 * 9 * 8 * 8
    assert counts[1] - counts[0] > multiply_adds / 8


@pytest.mark.usefixtures("arm_python")
def test_a_refused_model_is_an_error_of_the_runner(a76: EmulatedDevice, tmp_path: Path) -> None:
    (tmp_path / "bad.pte").write_bytes(b"no program")
    with pytest.raises(RunnerError, match="no valid ExecuTorch program") as caught:
        a76.run("executorch", tmp_path / "bad.pte", np.zeros((1, 8, 16, 32), np.float32))
    assert caught.value.kind == "model"
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(RunnerError, match="cannot be loaded") as caught:
        a76.run("onnxruntime", tmp_path / "bad.onnx", np.zeros((1, 8, 16, 32), np.float32))
    assert caught.value.kind == "model"


def test_a_run_that_hangs_is_given_up(a76: EmulatedDevice, pte: Path, sample: Path) -> None:
    with pytest.raises(DeviceError, match=r"did not end within 0\.5 s"):
        a76.run("executorch", pte, np.load(sample), iterations=10**8, timeout_s=0.5)


def test_the_work_folder_is_removed(pte: Path, sample: Path) -> None:
    with EmulatedDevice(CPU_MODELS["cortex-a72"]) as device:
        device.run("executorch", pte, np.load(sample))
        folder = device.transport.folder  # type: ignore[attr-defined]
        assert (folder / "model").exists()
    assert not folder.exists()


def test_preparing_again_changes_nothing(arm_python: ArmPython) -> None:
    said: list[str] = []
    before = arm_python.root.stat().st_mtime_ns
    assert prepare_emulation(progress=said.append) == arm_python
    assert said == []
    assert arm_python.root.stat().st_mtime_ns == before


def test_a_missing_emulator_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="`apt-get install qemu-user`"):
        qemu_program()
    with pytest.raises(MissingToolError, match="Debian 12"):
        prepare_emulation(tmp_path)


def test_no_model_turns_sme_on(tmp_path: Path) -> None:
    for cpu in CPU_MODELS.values():
        words = emulator(cpu, tmp_path)
        assert words[1] == "-cpu"
        assert not words[2].startswith("max") or "sme=off" in words[2]
