"""An artifact from elsewhere that crashes, hangs or asks for gigabytes is a sentence where it is timed or sent, too."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from litehrnet_stage2.apps import bench
from litehrnet_stage2.reference.contract.manifest import BundleError
from litehrnet_stage2.reference.progress import silent
from litehrnet_stage2.runtime import Bundle, memory_limit, open_session, trial
from litehrnet_stage2.runtime.coreml.proto import message_modules
from litehrnet_stage2.runtime.devices import RunnerBuild, RunnerError, parse_device
from litehrnet_stage2.runtime.latency import bundle_candidates
from litehrnet_stage2.runtime.latency.lanes import Failed, ProcessReply
from litehrnet_stage2.runtime.latency.lanes.process import Task, worker_process
from litehrnet_stage2.runtime.programs.device_program import open_device_session
from tests.runtime.test_trial import CRASHES, HANGS, changed

WANTED = 2 * memory_limit.MOST_BYTES


@pytest.fixture
def greedy(damaged: Path) -> Bundle:
    """A bundle whose `.pte` plans eight GiB of memory for its 30 KiB, all hashes made good."""
    good = (damaged / "stage2.pte").read_bytes()
    (planned,) = re.finditer(rb"\x02\0\0\0" + rb"\0" * 8 + rb"(.{3}\0{5})", good, re.DOTALL)
    bad = good[: planned.start(1)] + struct.pack("<q", WANTED) + good[planned.end(1) :]
    return Bundle.open(changed(damaged, "stage2.pte", bad))


class TimedError(Exception):
    """The timing began."""


def timed(folder: Path) -> None:
    """Do what `stage2 bench` does until something is timed."""

    def begin(*_: object, **__: object) -> None:
        raise TimedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("litehrnet_stage2.runtime.latency.measure", begin)
        bench.run(
            folder,
            runtimes=["onnxruntime"],
            threads=None,
            tier="quick",
            affinity=(),
            groups=[],
            sustained_min=0,
            progress=silent,
        )


@pytest.mark.parametrize(
    ("program", "message"),
    [(CRASHES, "was ended by SIGSEGV when it tried it"), (HANGS, "did not open it and run it once within 1 s")],
)
def test_bench_refuses_one_that_ends_or_holds_up_a_process_before_anything_is_timed(
    program: str, message: str, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(damaged, "stage2.onnx", (damaged / "stage2.onnx").read_bytes() + b"\x62\x00")
    monkeypatch.setattr(trial, "LONGEST_S", 1.0)
    monkeypatch.setattr(trial, "PYTHON", (*trial.PYTHON, "-c", program))
    with pytest.raises(BundleError, match=rf"stage2\.onnx cannot be opened: ONNX Runtime {message}"):
        timed(damaged)


def test_bench_tries_nothing_that_was_made_here(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "run_bounded", lambda *_, **__: pytest.fail("it was tried"))
    with pytest.raises(TimedError):
        timed(small_bundle)


@pytest.mark.parametrize("kind", ["time", "trace"])
def test_a_process_that_times_gets_no_more_memory_than_is_stated(kind: str, greedy: Bundle) -> None:
    """Were it not tried first, as in Python: `measure_here`."""
    (candidate,) = bundle_candidates(greedy, runtimes=["executorch"], threads=[1])
    task = Task(kind=kind, candidate=candidate, bundle=str(greedy.folder), queries=1)
    with worker_process(task, longest_s=100) as worker:
        reply = worker.reply(ProcessReply)
    assert isinstance(reply, Failed)
    assert "bad_alloc" in reply.why


def test_a_process_on_a_device_gets_no_more_memory_than_is_stated(greedy: Bundle, runner: RunnerBuild) -> None:
    with (
        parse_device("local") as device,
        open_device_session(greedy, "executorch", device) as session,
        pytest.raises(RunnerError, match="bad_alloc"),
    ):
        session.run(greedy.golden().x[:1])


def test_an_emulated_process_gets_no_more_memory_than_is_stated(greedy: Bundle, arm_runner: RunnerBuild) -> None:
    with (
        parse_device("emulated:cortex-a76") as device,
        open_device_session(greedy, "executorch", device) as session,
        pytest.raises(RunnerError, match="bad_alloc"),
    ):
        session.run(greedy.golden().x[:1])


def test_a_core_ml_package_that_asks_for_gigabytes_is_refused(damaged: Path) -> None:
    """Of a map of 8x12 it wants one of 23,200x34,800."""
    name = "stage2.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    _, model_pb2 = message_modules()
    model = model_pb2.Model()
    model.ParseFromString((damaged / name).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    constants = [item for item in block.operations if item.outputs[0].name.startswith("upsample_bilinear_0_scale")]
    assert len(constants) == 2
    for item in constants:
        item.attributes["val"].immediateValue.tensor.floats.values[:] = [2900.0]
    changed(damaged, name, model.SerializeToString())
    with pytest.raises(BundleError, match=r"stage2\.mlpackage cannot be opened: .* refuses it .*Unable to allocate"):
        open_session(damaged, "coreml-eval")
