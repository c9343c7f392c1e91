"""A network of two inputs, named unlike Stage2's: all that runs, checks and times an artifact reads the manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.baselines.build import BASELINES, build_baseline
from litehrnet_stage2.apps.check_bundle import check_bundle
from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.reference.contract.artifacts import Border
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime import Bundle, check_parity
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.devices.device import local_device
from litehrnet_stage2.runtime.latency import Plan, bundle_candidates, measure, tier_named
from litehrnet_stage2.runtime.latency.lanes.mac import MacLane, mac_candidates
from litehrnet_stage2.runtime.latency.lanes.process import Task
from litehrnet_stage2.runtime.latency.lanes.worker import Opened
from litehrnet_stage2.runtime.parity import sqnr_db
from litehrnet_stage2.runtime.program import Names, open_program
from litehrnet_stage2.runtime.programs.coreml_program import CoreMlProgram
from litehrnet_stage2.runtime.programs.device_program import open_device_session
from litehrnet_stage2.runtime.session import Session, session_info

TARGETS = ("executorch-codes", "litert-codes", "onnx", "onnx-codes", "coreml")
WORKER = (sys.executable, str(Path(__file__).parent / "coreml" / "stand_in_worker.py"), "answers")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hint = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(4, 8, 1)
        self.heat, self.size = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, picture: Tensor, prior: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.stem(picture) + self.hint(prior))
        return {"heat": self.heat(x), "size": self.size(x)}


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "picture": random.integers(0, 256, (4, 3, 16, 24)).astype(np.uint8),
        "prior": random.normal(size=(4, 4, 8, 12)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def bundle(inputs: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("two") / "bundle"
    convert_network(TwoInputs().eval(), folder, *inputs.values(), targets=TARGETS)
    return Bundle.open(folder)


def test_every_runtime_gives_the_golden_codes_of_a_persons_own_inputs(
    bundle: Bundle, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", **{name: x[::-1] for name, x in inputs.items()})
    results = check_bundle(bundle.folder, inputs=tmp_path / "mine.npz")
    assert len(results) == 1 + len(TARGETS)
    for result in results:
        assert result.passed
        assert list(result.outputs) == ["heat", "size"]
        assert result.images == 4
        assert result.flips is not None  # type: ignore[union-attr]
        assert 0 < result.flips.off_grid <= inputs["prior"].size  # type: ignore[union-attr]  # pixels are codes


def test_an_input_that_a_persons_file_lacks_is_named(
    bundle: Bundle, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", picture=inputs["picture"])
    with pytest.raises(InputError, match="has no array `prior`: it has picture"):
        check_bundle(bundle.folder, inputs=tmp_path / "mine.npz")
    np.save(tmp_path / "mine.npy", inputs["picture"])
    with pytest.raises(InputError, match=r"is one array, and the network has 2 inputs: give a \.npz with their names"):
        check_bundle(bundle.folder, inputs=tmp_path / "mine.npy")


def test_a_mac_is_asked_by_the_names_of_the_manifest(bundle: Bundle) -> None:
    """Of the stand-in, whose Core ML is the evaluator: that Core ML takes the names too, only a Mac can show."""
    info = session_info(bundle, runtime="coreml", version="0", artifact=bundle.artifact("coreml"), threads=1)
    names = Names(("picture", "prior"), ("heat", "size"))
    program = CoreMlProgram(bundle.folder / info.artifact, "cpu", names, worker=WORKER)
    session = Session(info, BorderProgram(program, info.inputs, info.outputs, Border("float32")))
    assert check_parity(session, bundle.golden()).passed
    with MacLane(bundle, Plan(tier=tier_named("quick"), processes=1), worker=WORKER) as lane:
        run = measure(lane, mac_candidates(bundle)[:1])
    assert run.candidates[0].failure is None
    assert list(run.candidates[0].parity) == ["heat", "size"]


@pytest.mark.parametrize("runtime", ["executorch-codes", "litert-codes", "onnxruntime"])
def test_what_is_timed_gives_the_golden_codes(bundle: Bundle, runtime: str) -> None:
    (candidate,) = bundle_candidates(bundle, runtimes=[runtime], threads=[1])
    opened = Opened(Task(kind="time", candidate=candidate, bundle=str(bundle.folder)))
    opened.run()
    assert opened.worth().mismatches == 0


@pytest.mark.parametrize("name", ["fp32 .onnx", "stock int8 .onnx", "fp32 .pte"])
def test_a_baseline_takes_every_input(bundle: Bundle, name: str, tmp_path: Path) -> None:
    baseline = BASELINES[name]
    path = build_baseline(bundle, baseline, cache_dir=tmp_path)
    program = open_program(baseline.library, path.read_bytes(), threads=1, exact=False)
    golden = bundle.golden()
    found = program.finish(program.run(program.prepare(*(x[:1] for x in golden.real))))
    for y, spec in zip(found, bundle.manifest.outputs, strict=True):
        due = spec.quantization.dequantize(golden.outputs[spec.name][:1])
        assert sqnr_db(due, y - due) > 15


@pytest.mark.parametrize("runtime", ["litert-codes", "onnxruntime"])
def test_a_device_is_sent_every_input(bundle: Bundle, runtime: str) -> None:
    with local_device() as device, open_device_session(bundle, runtime, device) as session:
        assert check_parity(session, bundle.golden()).passed
