"""The benchmark on real artifacts: fresh processes, turns, parity around the timing, a verdict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.runtime import Bundle, Golden
from litehrnet_stage2.runtime.fidelity import compare_with_float
from litehrnet_stage2.runtime.latency import (
    SCHEMA_VERSION,
    Plan,
    Result,
    Run,
    Tier,
    bundle_candidates,
    measure_here,
    read_result,
)
from litehrnet_stage2.runtime.latency.lanes import Failed, ProcessReply
from litehrnet_stage2.runtime.latency.lanes.process import Task, worker_process
from litehrnet_stage2.runtime.latency.result import Sustained

SHORT = Tier("quick", 12, 0.2)


def dequantized(golden: Golden, specs: Sequence[TensorSpec]) -> tuple[np.ndarray, np.ndarray]:
    """The golden codes of the inputs with float outputs, as the floats they mean."""
    count = len(golden.floats["y1"])
    y1, y2 = (spec.quantization.dequantize(golden.outputs[spec.name][:count]) for spec in specs)
    return y1, y2


TIMED = ("executorch", "onnxruntime-codes")


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def run(codes_bundle: Bundle, steps: list[str]) -> Run:
    candidates = bundle_candidates(codes_bundle, runtimes=TIMED, threads=[1])
    return measure_here(codes_bundle, candidates, Plan(tier=SHORT, processes=3), progress=steps.append)


def result(*runs: Run) -> Result:
    return Result(
        schema_version=SCHEMA_VERSION,
        created="2026-01-02T03:04:05+00:00",
        command="stage2 bench bundle",
        tier="quick",
        golden_sha256="0" * 64,
        weights="the bundle's",
        runs=runs,
    )


def written(folder: Path, value: Result) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(dataclasses.asdict(value)))
    return path


def test_each_other_round_is_reversed(run: Run, steps: list[str]) -> None:
    started = [step.split(": ")[1].split(",")[0] for step in steps if step.startswith("round") and "thread" in step]
    a, b = TIMED
    assert started == [a, b, b, a, a, b]


@pytest.fixture
def task(codes_bundle: Bundle) -> Task:
    (candidate,) = bundle_candidates(codes_bundle, runtimes=["onnxruntime"], threads=[1])
    return Task(kind="time", candidate=candidate, bundle=str(codes_bundle.folder), queries=4, seconds=0)


def test_a_process_takes_its_samples_turn_by_turn(task: Task) -> None:
    """So that whatever slows the machine for a while meets every candidate."""
    with worker_process(task, longest_s=60) as one, worker_process(task, longest_s=60) as other:
        for _ in range(3):
            one.turn()
            other.turn()
        replies = one.reply(ProcessReply), other.reply(ProcessReply)
    for reply in replies:
        assert isinstance(reply, ProcessReply)
        assert reply.timing is not None
        assert reply.timing.conditions.turns == (4, 4, 4)
        assert [len(turn) for turn in reply.timing.samples_ms] == [4, 4, 4]
    assert Plan(tier=Tier("long", 1, 30), processes=5).turns == 30
    assert Plan(tier=Tier("short", 1, 0.1), processes=5).turns == 1


def test_a_process_that_takes_too_long_is_ended_and_says_so(task: Task) -> None:
    endless = dataclasses.replace(task, kind="sustain", seconds=100)
    with worker_process(endless, longest_s=2) as worker:
        worker.turn()
        assert worker.reply(Sustained) == Failed("its process was ended: it gave no reply within 2 s")


def test_a_process_that_dies_between_turns_takes_no_other_with_it(task: Task) -> None:
    with worker_process(task, longest_s=60) as one, worker_process(task, longest_s=60) as other:
        one.turn()
        other.turn()
        one.process.kill()
        one.process.wait()
        one.turn()
        other.turn()
        dead, alive = one.reply(ProcessReply), other.reply(ProcessReply)
    assert isinstance(dead, Failed)
    assert "its process ended with status -9" in dead.why
    assert isinstance(alive, ProcessReply)
    assert alive.timing is not None
    assert alive.timing.conditions.turns == (4, 4)


def test_a_process_that_dies_while_it_waits_ends_quietly(task: Task) -> None:
    with worker_process(task, longest_s=60) as worker:
        worker.process.kill()
        worker.process.wait()
        worker.turn()


def test_every_process_gives_samples_after_a_warm_up(run: Run) -> None:
    for candidate in run.candidates:
        latency, cold = candidate.latency, candidate.cold
        assert latency is not None
        assert cold is not None
        assert len(latency.samples_ms) == len(cold.load_ms) == len(cold.first_ms) == 3
        assert all(len(samples) >= 4 for samples in latency.samples_ms)
        assert latency.queries == sum(map(len, latency.samples_ms))
        assert min(latency.warmup_queries) >= 20
        pooled = np.concatenate(latency.samples_ms)
        assert latency.p50_ms.value == pytest.approx(np.median(pooled), abs=1e-4)  # samples are kept to 0.1 us
        assert latency.p50_ms.low <= latency.p50_ms.value <= latency.p50_ms.high
        assert latency.p50_ms.value <= latency.p90_ms.value <= latency.p99_ms


def test_parity_is_checked_before_and_after_the_timing(run: Run, codes_bundle: Bundle) -> None:
    golden = codes_bundle.golden()
    for candidate in run.candidates:
        for parity in (candidate.parity_before, candidate.parity_after):
            assert parity is not None
            assert {name: output.compared for name, output in parity.items()} == {
                "y1": golden.outputs["y1"].size,
                "y2": golden.outputs["y2"].size,
            }
            assert not any(output.mismatches for output in parity.values())


def test_a_process_imports_no_other_runtime_than_its_own(run: Run) -> None:
    """Torch alone takes more than 100 MiB, and ONNX Runtime needs none of it."""
    memory = {candidate.library: candidate.memory for candidate in run.candidates}
    executorch, onnxruntime = memory["executorch"], memory["onnxruntime"]
    assert executorch is not None
    assert onnxruntime is not None
    assert onnxruntime.rss_before_load_mib < executorch.rss_before_load_mib - 50
    assert onnxruntime.rss_peak_mib > onnxruntime.rss_before_load_mib


def test_profiles_account_for_every_operator(run: Run) -> None:
    executorch, onnxruntime = (
        {o.kind: o.count for o in c.profile.operators} if c.profile else {} for c in run.candidates
    )
    coverage = {c.library: c.coverage for c in run.candidates}
    assert coverage["executorch"] is not None
    assert coverage["onnxruntime"] is not None
    for kind, count in coverage["onnxruntime"].int8.items():
        assert onnxruntime[kind] == count
    assert executorch["Table lookup (SiLU)"] == coverage["executorch"].int8["sigmoid"]


def test_the_environment_says_what_ran_where(run: Run) -> None:
    assert run.machine.arch
    assert run.environment.versions["onnxruntime"] == run.candidates[1].version
    assert run.environment.cores >= 1
    assert run.candidates[0].sha256


def test_shares_of_a_profile_are_of_the_measured_p50(run: Run) -> None:
    for candidate in run.candidates:
        assert candidate.profile is not None
        assert candidate.latency is not None
        assert candidate.profile.operators
        for operator in candidate.profile.operators:
            assert operator.share == pytest.approx(operator.ms / candidate.latency.p50_ms.value)


def test_every_candidate_has_its_signal_to_noise_against_the_float_network(run: Run, codes_bundle: Bundle) -> None:
    golden, specs = codes_bundle.golden(), codes_bundle.manifest.outputs
    due = compare_with_float(dequantized(golden, specs), golden, specs)
    for candidate in run.candidates:
        assert candidate.sqnr_db == pytest.approx({name: output.golden_sqnr_db for name, output in due.items()})


def test_what_the_machine_does_not_show_is_named(run: Run) -> None:
    conditions = [condition for candidate in run.candidates for condition in candidate.conditions]
    for name, field in (("temperature", "temperature_c"), ("waiting for a core", "cpu_share")):
        known = any(getattr(condition, field) is not None for condition in conditions)
        assert (name in run.validity.unknown) != known


def test_a_result_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    assert read_result(written(tmp_path, result(run))) == result(run)


@pytest.fixture
def tampered(codes_bundle: Bundle, tmp_path: Path, forge: Callable[..., None]) -> Bundle:
    """A bundle whose ONNX artifact has one bias changed, and whose manifest agrees with it."""
    folder = shutil.copytree(codes_bundle.folder, tmp_path / "bundle")
    path = folder / codes_bundle.artifact("onnx")
    model = onnx.load(path)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("bias/codes"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 5000, bias.name))
    onnx.save(model, path)
    forge(folder, files=[path.name])
    return Bundle.open(folder)


def test_a_wrong_artifact_gets_no_number_and_the_others_do(tampered: Bundle) -> None:
    candidates = bundle_candidates(tampered, runtimes=["onnxruntime", "onnxruntime-codes"], threads=[1])
    wrong, right = measure_here(tampered, candidates, Plan(tier=SHORT, processes=1)).candidates
    assert wrong.latency is None
    assert wrong.failure is not None
    assert "codes differ from the golden ones before timing" in wrong.failure
    assert wrong.parity_before is not None
    assert wrong.parity_before["y1"].mismatches
    assert right.latency is not None


def test_an_artifact_changed_on_disk_is_not_opened(tampered: Bundle) -> None:
    candidates = bundle_candidates(tampered, runtimes=["onnxruntime"], threads=[1])
    Path(candidates[0].path).write_bytes(b"something else")
    (candidate,) = measure_here(tampered, candidates, Plan(tier=SHORT, processes=1)).candidates
    assert candidate.latency is None
    assert candidate.failure is not None
    assert "has SHA-256" in candidate.failure


def test_an_artifact_its_runtime_refuses_ends_nothing_else(tampered: Bundle) -> None:
    refused, other = bundle_candidates(tampered, runtimes=["onnxruntime", "onnxruntime-codes"], threads=[1])
    Path(refused.path).write_bytes(b"no model")
    refused = dataclasses.replace(refused, sha256=hashlib.sha256(b"no model").hexdigest())
    run = measure_here(tampered, [refused, other], Plan(tier=SHORT, processes=1))
    assert run.candidates[0].failure is not None
    assert "its process ended with status 1" in run.candidates[0].failure
    assert run.candidates[1].latency is not None


@contextmanager
def busy_cores() -> Iterator[None]:
    """A busy loop for every core, each seen to have begun."""
    program = "print('spinning', flush=True)\nwhile True: pass"
    loops = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            assert loop.stdout.readline() == "spinning\n"
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not show who uses its cores")
def test_a_loaded_machine_is_noticed(codes_bundle: Bundle) -> None:
    candidates = bundle_candidates(codes_bundle, runtimes=["onnxruntime"], threads=[1])
    with busy_cores():
        run = measure_here(codes_bundle, candidates, Plan(tier=SHORT, processes=2))
    assert not run.validity.valid
    assert any("other processes kept" in reason for reason in run.validity.reasons)
    assert run.candidates[0].latency is not None  # said to be doubtful, not hidden


def test_sustained_running_compares_the_last_window_with_the_first(codes_bundle: Bundle) -> None:
    candidates = bundle_candidates(codes_bundle, runtimes=["onnxruntime"], threads=[1])
    settings = Plan(tier=SHORT, processes=1, sustained_min=0.02)
    (candidate,) = measure_here(codes_bundle, candidates, settings).candidates
    sustained = candidate.sustained
    assert sustained is not None
    assert sustained.window_s == pytest.approx(0.6)
    assert len(sustained.p50_ms) == 2
    assert sustained.last_to_first == pytest.approx(sustained.p50_ms[1] / sustained.p50_ms[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_benchmark_that_is_killed_while_it_sustains_leaves_no_worker(
    codes_bundle: Bundle, number: signal.Signals
) -> None:
    asking = textwrap.dedent(f"""
        import dataclasses, sys
        from pathlib import Path
        from litehrnet_stage2.runtime.latency import bundle_candidates
        from litehrnet_stage2.runtime import Bundle
        from litehrnet_stage2.runtime.latency.lanes.process import Task, worker_process
        bundle = Bundle.open(Path({str(codes_bundle.folder)!r}))
        (candidate,) = bundle_candidates(bundle, runtimes=["onnxruntime"], threads=[1])
        task = Task(kind="sustain", candidate=candidate, bundle=str(bundle.folder), seconds=600)
        import litehrnet_stage2.runtime.latency.lanes.process as process
        listen = process.WorkerProcess._listen
        process.WorkerProcess._listen = lambda self: (print(self.process.pid, flush=True), listen(self))
        with worker_process(task, longest_s=600):
            pass
    """)
    with subprocess.Popen(
        [sys.executable, "-c", asking], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as asked:
        assert asked.stdout is not None
        worker = int(asked.stdout.readline())
        status = Path(f"/proc/{worker}/status")
        asked.send_signal(number)
        asked.wait(timeout=60)
    for _ in range(600):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail(f"the worker outlived its parent by a minute after {number.name}")


def test_plans_that_cannot_be_are_refused(codes_bundle: Bundle) -> None:
    candidates = bundle_candidates(codes_bundle, runtimes=["onnxruntime"], threads=[1])
    with pytest.raises(ValueError, match="core 9999 is not one this process may use"):
        measure_here(codes_bundle, candidates, Plan(affinity=(9999,)))
    with pytest.raises(ValueError, match=r"`sustained_min` \(=-1\)"):
        Plan(sustained_min=-1)


def test_candidates_that_cannot_be_are_refused(codes_bundle: Bundle, small_bundle: Path) -> None:
    with pytest.raises(ValueError, match="unknown runtime 'tflite': those that can be timed are executorch, "):
        bundle_candidates(codes_bundle, runtimes=["tflite"], threads=[1])
    with pytest.raises(ValueError, match=r"`threads` \(=0\) must be at least 1"):
        bundle_candidates(codes_bundle, runtimes=None, threads=[0])
    with pytest.raises(ValueError, match="has no onnx-codes artifact"):
        bundle_candidates(Bundle.open(small_bundle), runtimes=["onnxruntime-codes"], threads=[1])


def test_without_a_choice_everything_a_bundle_has_is_timed(codes_bundle: Bundle, small_bundle: Path) -> None:
    every = bundle_candidates(codes_bundle, runtimes=None, threads=[1, 2])
    assert len({candidate.key for candidate in every}) == 2 * len(codes_bundle.manifest.artifacts)
    floats = bundle_candidates(Bundle.open(small_bundle), runtimes=None, threads=[1])
    assert [candidate.name for candidate in floats] == ["executorch", "litert", "onnxruntime"]
