"""`stage2 convert --network`: a person's own module, from the command line and from Python."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.apps.network_source import load_inputs, load_network, parse_input
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.network_checkpoint import save_network_checkpoint
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.fidelity import golden_sqnr_db

Stage2Command = Callable[..., "subprocess.CompletedProcess[str]"]

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.SiLU())
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, image):
        return {"heat": self.head(self.body(self.stem(image)))}


def make():
    torch.manual_seed(0)
    return Net()


def broken():
    raise RuntimeError("no such weights")


def text():
    return "a network"


def leaky():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU())
"""

TARGETS = "executorch-codes,litert-codes,onnx,onnx-codes,coreml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder: their module, and images to calibrate on."""
    (tmp_path / "own_model.py").write_text(MODEL)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 48)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "int16.npy", images.astype(np.int16))
    np.save(tmp_path / "black.npy", np.zeros_like(images))
    np.save(tmp_path / "small.npy", images[..., :24])
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    np.save(tmp_path / "mixed" / "a.npy", images)
    np.save(tmp_path / "mixed" / "b.npy", (images / 255).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(factory: str = "own_model:make", **changed: str | None) -> list[str]:
    given = {
        "network": factory,
        "input": "image=1x3x32x48:pixels",
        "calibration": "images.npy",
        "out": "bundle",
        "targets": TARGETS,
    } | changed
    return ["convert", *(word for name, value in given.items() if value for word in (f"--{name}", value))]


def test_every_runtime_gives_the_same_codes(folder: Path, stage2: Stage2Command) -> None:
    (folder / "numpy.py").write_text("raise SystemExit('a file of the current folder was taken for numpy')")
    done = stage2(*options())
    assert done.returncode == 0, done.stderr
    manifest = Bundle.open(folder / "bundle").manifest
    assert [(spec.name, spec.kind, spec.shape) for spec in manifest.inputs] == [("image", "pixels", (1, 3, 32, 48))]
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("heat", (1, 1, 16, 24))]
    checked = stage2("parity", "bundle", "--runtime", "golden", *_runtimes())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    rows = [line.split() for line in checked.stdout.splitlines() if "3,072" in line]
    assert len(rows) == 6
    assert all(row[row.index("3,072") + 1] == "0" for row in rows)


def _runtimes() -> list[str]:
    names = ("executorch-codes", "litert-codes", "onnxruntime", "onnxruntime-codes", "coreml-eval")
    return [word for name in names for word in ("--runtime", name)]


def test_weights_come_from_a_safetensors_file(folder: Path, stage2: Stage2Command) -> None:
    network: nn.Module = _make(folder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    save_file(network.state_dict(), folder / "w.safetensors")
    one = stage2(*options(targets="onnx-codes"))
    two = stage2(*options(targets="onnx-codes", checkpoint="w.safetensors", out="other"))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    first, second = (Bundle.open(folder / name).manifest.golden_sha256 for name in ("bundle", "other"))
    assert first != second


def _make(folder: Path) -> nn.Module:
    namespace: dict[str, object] = {}
    exec(compile((folder / "own_model.py").read_text(), "own_model.py", "exec"), namespace)
    return namespace["make"]()  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"factory": "own_model"}, "'own_model' is not MODULE:NAME"),
        ({"factory": "no_such_module:make"}, "could not make the network: ModuleNotFoundError"),
        ({"factory": "own_model:broken"}, "could not make the network: RuntimeError: no such weights"),
        ({"factory": "own_model:text"}, "returned a str, where a torch.nn.Module is due"),
        ({"factory": "own_model:leaky", "input": "input=1x3x32x48:pixels"}, "LeakyReLU has no int8 form"),
        ({"input": "image=3x32x48"}, "is not NAME=1xCxHxW"),
        ({"input": "picture=1x3x32x48:pixels"}, "has no input `picture`: it takes image"),
        ({"input": "image=1x3x16x48:pixels"}, "must hold `image` as [N,3,16,48]"),
        ({"input": None}, "a whole network needs --input"),
        ({"calibration": None}, "give --calibration FILE.npy"),
        ({"calibration": "absent.npy"}, "absent.npy"),
        ({"calibration": "empty"}, "no .npy file in the folder empty"),
        ({"calibration": "mixed"}, "mixed/b.npy holds float32, and mixed/a.npy before it uint8: give pixels as uint8"),
        ({"calibration": "small.npy"}, "must hold `image` as [N,3,32,48], N >= 1, but has [4, 3, 32, 24]"),
        ({"calibration": "int16.npy"}, "must hold `image` as uint8, or floats in [0, 1], but holds int16"),
        ({"calibration": "black.npy"}, "examples of `image` to calibrate on must hold what the network will see, but"),
        ({"checkpoint": "weights.pt"}, "PyTorch's own format, which is not read"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(
    folder: Path, stage2: Stage2Command, changed: dict[str, str | None], message: str
) -> None:
    done = stage2(*options(**changed))  # type: ignore[arg-type]
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "bundle").exists()


@pytest.mark.parametrize("most", [None, 3, 4, 5])
def test_a_folder_of_files_is_read_as_one(tmp_path: Path, most: int | None) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "a.npy", images[:4])
    np.save(tmp_path / "b.npy", images[4:])
    (found,) = load_inputs(tmp_path, [parse_input("image=1x3x4x4:pixels")], most=most)
    assert np.array_equal(found, images[:most])


def test_pixels_outside_of_0_to_1_are_refused(folder: Path, stage2: Stage2Command) -> None:
    np.save(folder / "images.npy", np.full((2, 3, 32, 48), 255.0, np.float32))
    done = stage2(*options())
    assert done.returncode == 2
    assert "pixels are uint8, or floats in [0, 1]" in " ".join(done.stderr.split())


@pytest.mark.parametrize("text", ["", "x", "x=1x3x2", "x=2x3x4x5", "x=1x0x4x5", "x=1x3x4x5:pixel", "a b=1x3x4x5"])
def test_an_input_that_is_not_declared_in_full_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not NAME=1xCxHxW"):
        parse_input(text)


def test_bytes_for_a_network_of_floats_are_refused(tmp_path: Path) -> None:
    floats = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    student = quantize(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.from_numpy(floats)).calibrate(torch.from_numpy(floats))
    with pytest.raises(InputError, match="is an input of floats and was given uint8"):
        convert_network(student, tmp_path / "bundle", np.zeros((2, 3, 8, 8), np.uint8))
    assert not (tmp_path / "bundle").exists()


def test_images_that_are_no_array_are_refused(tmp_path: Path) -> None:
    images = [np.zeros((3, 32, 64), np.uint8)]
    with pytest.raises(InputError, match=r"takes a numpy array .* but was given list: make an array of it"):
        convert_network(nn.Conv2d(3, 4, 1), tmp_path / "bundle", images)  # type: ignore[arg-type]


def test_a_tuned_checkpoint_is_converted_with_its_own_weights_and_ranges(
    folder: Path, stage2: Stage2Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    images = torch.from_numpy(np.load("images.npy"))
    network = load_network("own_model:make", None)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    tuned = quantize(network, images[:1]).calibrate(images)
    save_network_checkpoint(tuned, folder / "tuned.safetensors")
    converted = stage2(*options(checkpoint="tuned.safetensors", targets="onnx"))
    assert converted.returncode == 0, converted.stderr
    direct = convert_network(tuned, folder / "direct", np.load("images.npy"), targets=["onnx"])
    assert Bundle.open(folder / "bundle").manifest.golden_sha256 == direct.golden_sha256


def test_fidelity_of_tuned_weights_is_taken_against_the_float_network_that_they_came_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    images = torch.from_numpy(np.load("images.npy"))
    teacher, network = (quantize(load_network("own_model:make", None), images[:1]) for _ in range(2))
    with torch.no_grad():
        for parameter in network.get_submodule("head").parameters():
            parameter.mul_(1.5)
    network.calibrate(images)
    worst = []
    for name, given in (("itself", None), ("teacher", teacher)):
        convert_network(network, folder / name, np.load("images.npy"), targets=["onnx"], teacher=given)
        bundle = Bundle.open(folder / name)
        worst.append(min(golden_sqnr_db(bundle.golden(), bundle.manifest.outputs).values()))
    assert worst[1] < 15 < worst[0]
