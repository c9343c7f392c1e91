"""The process that asks Core ML: whatever becomes of it is one sentence that names the compute unit.

Run against a stand-in that speaks its protocol; that the real one does, only a Mac can show (`test_mac.py`).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.cli import app
from litehrnet_stage2.reference.contract.artifacts import Border
from litehrnet_stage2.runtime import Bundle, check_parity
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml.predict import UNITS, PredictionError, predict
from litehrnet_stage2.runtime.latency import SCHEMA_VERSION, Plan, Result, measure, tier_named
from litehrnet_stage2.runtime.latency.lanes.mac import MacLane, mac_candidates
from litehrnet_stage2.runtime.program import Names
from litehrnet_stage2.runtime.programs import coreml_program
from litehrnet_stage2.runtime.programs.coreml_program import CoreMlProgram
from litehrnet_stage2.runtime.session import Session, session_info

OUTPUTS = ("y1", "y2")
STAND_IN = Path(__file__).with_name("stand_in_worker.py")


def worker(behaviour: str) -> tuple[str, ...]:
    return (sys.executable, str(STAND_IN), behaviour)


@pytest.fixture
def package(apple_bundle: Path) -> Path:
    return apple_bundle / "stage2.mlpackage"


@pytest.fixture
def features(apple_bundle: Path) -> dict[str, np.ndarray]:
    return {"features": Bundle.open(apple_bundle).golden().x[:2]}


def test_outputs_and_report_come_back(package: Path, features: dict[str, np.ndarray], apple_bundle: Path) -> None:
    prediction = predict(package, "all", features, OUTPUTS, queries=3, worker=worker("answers"))
    assert prediction.outputs["y1"].shape == (2, 4, 16, 24)
    assert prediction.outputs["y2"].dtype == np.float32
    reply = prediction.reply
    assert (reply.load_ms, reply.first_ms, reply.samples_ms) == (3.0, 2.0, (1.0, 1.0, 1.0))
    assert reply.plan is not None
    assert (reply.plan[0].preferred, reply.plan[0].supported, reply.plan[0].cost) == ("ne", ("cpu", "ne"), 0.5)
    assert (reply.thermal_after, reply.host.model) == ("fair", "a stand-in")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("dies", r"on cpu\+ne: its process was killed by SIGKILL \(signal 9\) and said last: about to die"),
        ("dies on the Neural Engine", r"on cpu\+ne: its process was killed by SIGABRT \(signal 6\)"),
        ("gives up", r"on cpu\+ne: its process ended with status 1 and said last: no such device"),
        ("refuses", r"on cpu\+ne: the model cannot be compiled"),
        ("babbles", r"on cpu\+ne: its process's reply is malformed, it begins 'Hello from a library"),
        ("leaves something out", r"on cpu\+ne: its process's reply is malformed \(CodecError\(\"it has no field"),
        ("forgets the outputs", r"on cpu\+ne: its process's reply is malformed \(FileNotFoundError"),
        ("forgets an image", r"on cpu\+ne: .* malformed \(`y1` is float32 \[1, 4, 16, 24\] for 2 images\)"),
    ],
)
def test_what_becomes_of_the_process_names_the_unit(
    package: Path, features: dict[str, np.ndarray], behaviour: str, message: str
) -> None:
    with pytest.raises(PredictionError, match=message):
        predict(package, "cpu+ne", features, OUTPUTS, worker=worker(behaviour))


def test_a_process_that_does_not_answer_is_stopped(package: Path, features: dict[str, np.ndarray]) -> None:
    with pytest.raises(PredictionError, match=r"on cpu\+gpu: .* did not end within 0\.5 s and was stopped"):
        predict(package, "cpu+gpu", features, OUTPUTS, worker=worker("hangs"), timeout_s=0.5)


def test_an_unknown_unit_is_refused(package: Path, features: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"unknown compute unit 'npu': they are cpu, cpu\+gpu, cpu\+ne, all"):
        predict(package, "npu", features, OUTPUTS)


@pytest.mark.skipif(sys.platform == "darwin", reason="on a Mac the process does predict")
def test_the_real_process_says_that_it_needs_a_mac(package: Path, features: dict[str, np.ndarray]) -> None:
    with pytest.raises(PredictionError, match="Core ML on cpu: Core ML predicts on macOS only"):
        predict(package, "cpu", features, OUTPUTS)


@pytest.mark.parametrize(("exact", "unit"), [(True, "cpu"), (False, "cpu+ne")])
def test_the_exact_package_is_opened_on_the_cpu_and_the_other_with_the_neural_engine(
    exact: bool, unit: str, package: Path, features: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[str] = []

    def note(_: Path, unit: str, *rest: object, **options: object) -> SimpleNamespace:
        units.append(unit)
        return SimpleNamespace(outputs={})

    monkeypatch.setattr(coreml_program, "predict", note)
    names = Names(tuple(features), OUTPUTS)
    coreml_program.open_program(package, threads=1, exact=exact, names=names).run(tuple(features.values()))
    assert units == [unit]


def test_a_session_predicts_a_batch_in_one_process(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    info = session_info(bundle, runtime="coreml", version="0", artifact=bundle.artifact("coreml"), threads=1)
    program = CoreMlProgram(
        apple_bundle / info.artifact, "cpu", Names(("features",), OUTPUTS), worker=worker("answers")
    )
    session = Session(info, BorderProgram(program, info.inputs, info.outputs, Border("float32")))
    assert check_parity(session, bundle.golden()).passed
    with pytest.raises(ValueError, match="every value must be finite"):
        session.run(np.full((1, 4, 16, 24), np.nan, np.float32))


def test_a_unit_that_kills_its_process_leaves_the_others_their_numbers(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    plan = Plan(tier=tier_named("quick"), processes=2)
    with MacLane(bundle, plan, worker=worker("dies on the Neural Engine")) as lane:
        run = measure(lane, mac_candidates(bundle))
    assert [one.key for one in run.candidates] == [
        f"{target} on {unit}" for target in ("coreml", "coreml-ane") for unit in UNITS
    ]
    for one in run.candidates:
        if one.name.endswith("cpu+ne"):
            assert one.failure is not None
            assert "SIGABRT" in one.failure
            assert one.latency is None
            continue
        assert one.failure is None
        assert one.latency is not None
        assert one.cold is not None
        assert (one.latency.queries, one.latency.p50_ms.value) == (64, 1.0)
        assert (one.cold.load_ms, one.cold.first_ms, one.cold.compile_ms) == ((3.0, 3.0), (2.0, 2.0), (4.0, 4.0))
        assert [condition.thermal for condition in one.conditions] == ["fair"] * 2
        assert one.exact == (one.name == "coreml on cpu")
        assert (one.least_sqnr_db is None) != one.name.startswith("coreml-ane")
        assert one.planned is not None
        assert one.memory is None
    assert run.machine.soc == "a stand-in"
    assert {"clock", "waiting for a core", "temperature"} <= set(run.validity.unknown)


def test_what_a_mac_gives_is_a_result_that_a_report_reads(apple_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    with MacLane(bundle, Plan(tier=tier_named("quick"), processes=2), worker=worker("answers")) as lane:
        run = measure(lane, mac_candidates(bundle))
    result = Result(
        schema_version=SCHEMA_VERSION,
        created="2026-01-02T03:04:05+00:00",
        command="stage2 bench bundle --runtime coreml",
        tier="quick",
        golden_sha256=bundle.manifest.golden_sha256,
        weights="the bundle's",
        runs=(run,),
    )
    console.write_json(result, tmp_path / "mac.json")
    html, table = tmp_path / "mac.html", tmp_path / "mac.md"
    done = CliRunner().invoke(
        app, ["report", str(tmp_path / "mac.json"), "--html", str(html), "--markdown", str(table)]
    )
    assert done.exit_code == 0, done.output
    assert "| **coreml on cpu+ne** | 1.00 |" in table.read_text()
    assert "What Core ML plans" in html.read_text()


def test_without_a_core_ml_package_there_is_nothing_to_time(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    bare = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, artifacts={}, coverage={}))
    with pytest.raises(ValueError, match="has no Core ML package: convert again with `--targets coreml` added"):
        mac_candidates(bare)
