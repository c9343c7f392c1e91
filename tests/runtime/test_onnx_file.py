"""An `.onnx` with data outside of its file is refused before any library or device sees it, wherever it is opened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from litehrnet_stage2.reference.contract.manifest import BundleError
from litehrnet_stage2.runtime import Bundle, open_session, trial
from litehrnet_stage2.runtime.devices import Device, EmulatedDevice, RunnerError
from litehrnet_stage2.runtime.devices.emulation import CPU_MODELS
from litehrnet_stage2.runtime.latency.candidates import bundle_candidates
from litehrnet_stage2.runtime.onnx_file import OnnxFileError, check_self_contained
from litehrnet_stage2.runtime.programs.device_program import open_device_session
from tests.runtime.external_data import external_tensor, one_convolution, with_external_data
from tests.runtime.hostile_device import HostileTransport, Lies
from tests.runtime.test_trial import changed

REFUSED = "refers to data outside of its file, which no hash covers"


def _plain() -> TensorProto:
    return numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")


def _in_a_constant() -> onnx.ModelProto:
    model = one_convolution(_plain())
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external_tensor("f")))
    return model


def _in_a_branch() -> onnx.ModelProto:
    model = one_convolution(_plain())
    inner = helper.make_graph([], "inner", [], [], [external_tensor("f")])
    model.graph.node.append(helper.make_node("If", ["b"], ["c"], then_branch=inner, else_branch=inner))
    return model


def _sparse() -> onnx.ModelProto:
    model = one_convolution(_plain())
    model.graph.sparse_initializer.add().indices.CopyFrom(external_tensor("f"))
    return model


def _in_a_function() -> onnx.ModelProto:
    model = one_convolution(_plain())
    function = model.functions.add()
    function.node.append(helper.make_node("Constant", [], ["c"], value=external_tensor("f")))
    return model


def _in_memory() -> onnx.ModelProto:
    return one_convolution(external_tensor("*/_ORT_MEM_ADDR_/*"))


@pytest.mark.parametrize("make", [_in_a_constant, _in_a_branch, _sparse, _in_a_function, _in_memory])
def test_a_tensor_that_lies_elsewhere_is_found_wherever_it_stands(make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(OnnxFileError, match=REFUSED):
        check_self_contained(make().SerializeToString())


def test_the_word_location_alone_is_no_data_elsewhere(small_bundle: Path) -> None:
    model = onnx.load_from_string((small_bundle / "stage2.onnx").read_bytes())
    model.graph.node[0].name = model.graph.doc_string = "location"
    check_self_contained(model.SerializeToString())


@pytest.mark.parametrize("seed", range(20))
def test_what_is_no_protobuf_and_names_places_is_refused(seed: int) -> None:
    noise = np.random.default_rng(seed).bytes(2000)
    with pytest.raises(OnnxFileError):
        check_self_contained(noise + b"location")


@pytest.fixture
def outside(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose `.onnx` has a weight in another file, all hashes made good; no library and no device is asked."""
    monkeypatch.setattr(trial, "run_bounded", lambda *_, **__: pytest.fail("the process that tries was started"))
    return changed(damaged, "stage2.onnx", with_external_data("weights.bin"))


def test_a_bundle_does_not_give_it_out(outside: Path) -> None:
    with pytest.raises(BundleError, match=rf"stage2\.onnx cannot be opened: it {REFUSED}"):
        Bundle.open(outside).read("stage2.onnx")


def test_a_session_and_a_benchmark_refuse_it(outside: Path) -> None:
    with pytest.raises(BundleError, match=REFUSED):
        open_session(outside, "onnxruntime")
    with pytest.raises(BundleError, match=REFUSED):
        bundle_candidates(Bundle.open(outside), runtimes=["onnxruntime"], threads=[1])


def test_nothing_of_it_reaches_a_device(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    lies = Lies({"put": 'touch "$0.was-put"', "run": "exit 9"})
    with Device("board", HostileTransport(tmp_path / "storage", lies), python=["python3"]) as device:
        with pytest.raises(BundleError, match=REFUSED):
            open_device_session(outside, "onnxruntime", device)
        with pytest.raises(RunnerError, match=rf"stage2\.onnx is not put on a device: it {REFUSED}"):
            device.run("onnxruntime", outside / "stage2.onnx", np.zeros((1, 1, 2, 2), np.float32))
    emulated = EmulatedDevice(next(iter(CPU_MODELS.values())))
    with pytest.raises(RunnerError, match=REFUSED):
        emulated.count_instructions("onnxruntime", outside / "stage2.onnx", np.zeros((1, 1, 2, 2), np.float32))
    assert not list(tmp_path.glob("**/*.was-put"))


def test_the_process_that_tries_refuses_it_before_the_library_is_given_it() -> None:
    code = (
        "import sys, onnxruntime\n"
        "from litehrnet_stage2.runtime.programs import onnxruntime_program as program\n"
        "onnxruntime.InferenceSession = lambda *_, **__: sys.exit(9)\n"
        "try:\n    program.open_program(sys.stdin.buffer.read(), threads=1, exact=True)\n"
        "except ValueError as error:\n    print(error)\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, input=with_external_data("weights.bin"), capture_output=True, check=True)
    assert REFUSED in done.stdout.decode()
