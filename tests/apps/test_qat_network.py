"""`stage2 qat --network`: a person's own network is tuned towards its float outputs, and what comes out converts."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.check_bundle import check_bundle
from litehrnet_stage2.apps.network_source import InputDeclaration, load_network
from litehrnet_stage2.apps.qat.command import register
from litehrnet_stage2.apps.qat.own_network import InputShards
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.network_checkpoint import save_network_checkpoint
from litehrnet_stage2.runtime import Bundle

Stage2Command = Callable[..., "subprocess.CompletedProcess[str]"]

PAGE = Path(__file__).parents[2] / "docs" / "qat.md"

MODEL = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.head = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image):
        return {"heat": self.head(self.stem(image))}


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 1, 1)

    def forward(self, image, other):
        return self.head(image) + self.head(other)


make, two = Net, Two


def broken():
    raise RuntimeError("no such weights")


def leaky():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.LeakyReLU(), nn.Conv2d(4, 4, 1), nn.GELU())


def classifier():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 24, 2))
"""


def blocks(count: int) -> NDArray[np.uint8]:
    """Images of squares of one colour, and noise."""
    rng = np.random.default_rng(0)
    images = np.kron(rng.uniform(0, 256, (count, 3, 8, 12)), np.ones((1, 1, 4, 4)))
    noisy: NDArray[np.uint8] = np.clip(images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    return noisy


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's folder: their module, its weights, and images.

    One channel is nearly silent and its weights in the head are large: they take nearly all of the head's int8, which
    calibration cannot mend and tuning can.
    """
    folder = tmp_path_factory.mktemp("own")
    (folder / "tuned_model.py").write_text(MODEL)
    np.save(folder / "images.npy", blocks(48))
    made: dict[str, Any] = {}
    exec(compile(MODEL, "tuned_model.py", "exec"), made)
    torch.manual_seed(0)
    network = made["make"]()
    with torch.no_grad():
        network.head.weight[:, 0] *= 60
        network.stem[1].weight[0] /= 60
        network.stem[1].bias[0] = -4
    save_file(network.state_dict(), folder / "w.safetensors")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the command is typed."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


KNOBS = {
    "steps": 40,
    "crop_cells": 4,
    "held_out_maps": 12,
    "threads": 1,
    "choose_every": 10,
    "checkpoint_every": 10,
    "ema_decay": 0.9,
}


def options(
    factory: str = "tuned_model:make", knobs: dict[str, object] | None = None, **changed: str | None
) -> list[str]:
    given = {
        "network": factory,
        "checkpoint": "w.safetensors",
        "input": "image=1x3x32x48:pixels",
        "features": "images.npy",
        "out": "run",
    } | changed
    sets = [word for name, value in (KNOBS | (knobs or {})).items() for word in ("--set", f"{name}={value}")]
    return ["qat", *(word for name, value in given.items() if value for word in (f"--{name}", value)), *sets]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: its exit status, and what it printed and said."""

    def run(*arguments: str) -> tuple[int, str, str]:
        said = io.StringIO()
        monkeypatch.setattr(console, "err", Console(file=said, width=1000))
        app = typer.Typer()
        register(app)
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.stdout, said.getvalue()

    return run


def test_a_tuned_network_is_nearer_to_float_than_a_calibrated_one_and_converts_to_the_same_codes(
    folder: Path, stage2: Stage2Command
) -> None:
    done = stage2(*options())
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "run" / "summary.json").read_text())
    before, after = summary["post_training"]["sqnr_db"]["heat"], summary["tuned"]["sqnr_db"]["heat"]
    assert f"heat {before:.2f} -> {after:.2f} dB" in done.stdout
    assert after > before + 5
    assert {path.name for path in (folder / "run").iterdir()} >= {"metrics.csv", "plot.png", "tensorboard"}

    converted = stage2(
        *("convert", "--network", "tuned_model:make", "--checkpoint", "run/qat.safetensors", "--out", "bundle"),
        *("--input", "image=1x3x32x48:pixels", "--calibration", "images.npy", "--targets", "onnx"),
    )
    assert converted.returncode == 0, converted.stderr
    assert f"fine-tuned to {after:.1f} dB in heat against its float network" in converted.stderr
    tuned, function = load_file(folder / "run" / "qat.safetensors"), Bundle.open(folder / "bundle").function()
    assert float(function.quantization["head"].scale) == pytest.approx(float(tuned["head.output.scale"]), rel=1e-3)
    results = check_bundle(folder / "bundle", runtimes=["golden", "onnxruntime"])
    assert len(results) == 2
    assert all(result.passed for result in results)


def test_the_commands_of_the_page_tune_a_network_and_convert_it(folder: Path, stage2: Stage2Command) -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## 2. Your whole network")[2].partition("\n## ")[0]
    (console_,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    tune, make = (shlex.split(line)[2:] for line in console_.replace("\\\n", " ").splitlines())
    (folder / "my_package").mkdir()
    shutil.copy(folder / "tuned_model.py", folder / "my_package" / "model.py")
    np.save(folder / "images.npy", np.tile(blocks(4), (1, 1, 8, 11))[..., :512])
    small = {"steps": 1, "batch": 1, "held_out_maps": 2, "calibration_maps": 1, "threads": 1}
    tuned = stage2(*tune, *(word for name, value in small.items() for word in ("--set", f"{name}={value}")))
    assert tuned.returncode == 0, tuned.stderr
    made = stage2(*make, "--targets", "onnx")
    assert made.returncode == 0, made.stderr
    assert [spec.name for spec in Bundle.open(folder / "bundle").manifest.outputs] == ["heat"]


@pytest.mark.parametrize("pixels", [":pixels", ""])
def test_resumed_from_any_checkpoint_a_run_ends_with_the_same_bytes(
    folder: Path, typed: Callable[..., tuple[int, str, str]], pixels: str
) -> None:
    np.save(folder / "floats.npy", (blocks(48) / np.float32(255)).astype(np.float32))
    given = {"features": "images.npy" if pixels else "floats.npy", "input": f"image=1x3x32x48{pixels}"}
    status, _, said = typed(*options(**given))
    assert status == 0, said
    for step in (10, 30):
        cut = folder / f"cut-{step}"
        (cut / "checkpoints").mkdir(parents=True)
        shutil.copy(folder / "run" / "metrics.csv", cut)
        for half in (folder / "run" / "checkpoints").glob(f"step-{step:08d}.*"):
            shutil.copy(half, cut / "checkpoints")
        status, _, said = typed(*options(out=cut.name, **given), "--resume")
        assert status == 0, said
        assert json.loads((cut / "summary.json").read_text())["first_step"] == step
        for name in ("qat.safetensors", "qat.json"):
            assert (cut / name).read_bytes() == (folder / "run" / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"checkpoint": "other.safetensors"}, "`teacher_sha256` was"),
        ({"output": "borders"}, "`teacher_config.outputs` was ['heat']"),
        ({"input": "image=1x3x32x48", "features": "floats.npy"}, "`teacher_config.pixels` was ['image']"),
        ({"features": "floats.npy"}, "`features` was"),
    ],
)
def test_a_run_is_not_resumed_with_another_network_or_other_inputs(
    folder: Path, typed: Callable[..., tuple[int, str, str]], changed: dict[str, str], fact: str
) -> None:
    floats = (blocks(48)[::-1] / np.float32(255)).astype(np.float32)
    np.save(folder / "floats.npy", floats)
    other = {
        name: 2 * value if value.is_floating_point() else value for name, value in load_file("w.safetensors").items()
    }
    save_file(other, folder / "other.safetensors")
    few: dict[str, object] = {"steps": 4, "checkpoint_every": 2}
    assert typed(*options(knobs=few))[0] == 0
    status, _, said = typed(*options(knobs=few, **changed), "--resume")
    assert status == 1
    assert f"cannot resume: {fact}" in said


PIXELS = "input=1x3x32x48:pixels"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"factory": "tuned_model"}, "'tuned_model' is not MODULE:NAME"),
        ({"factory": "no_such_module:make"}, "could not make the network: ModuleNotFoundError"),
        ({"factory": "tuned_model:broken"}, "could not make the network: RuntimeError: no such weights"),
        ({"factory": "tuned_model:leaky", "input": PIXELS, "checkpoint": None}, "LeakyReLU has no int8 form"),
        ({"factory": "tuned_model:leaky", "input": PIXELS, "checkpoint": None}, "GELU"),
        ({"factory": "tuned_model:classifier", "input": PIXELS, "checkpoint": None}, "takes no crops of 16x16"),
        ({"factory": "tuned_model:two", "checkpoint": None}, "Two` cannot run on the example inputs"),
        ({"input": None}, "a whole network needs --input"),
        ({"input": "image=3x32x48"}, "is not NAME=1xCxHxW"),
        ({"input": "picture=1x3x32x48:pixels"}, "has no input `picture`: it takes image"),
        ({"features": None}, "--features is missing: name the .npy files that hold the network's inputs"),
        ({"features": "absent.npy"}, "no file absent.npy: give a .npy, a folder of them or a quoted pattern"),
        ({"features": "empty"}, "no .npy file in the folder empty"),
        ({"features": "mixed"}, "holds float32, and mixed/a.npy before it uint8: give pixels as uint8 in all files"),
        ({"features": "images.npz"}, "images.npz is an .npz: give the array `image` in it as a .npy"),
        ({"features": "int16.npy"}, "must hold `image` as uint8, or floats in [0, 1], but holds int16"),
        ({"features": "small.npy"}, "must hold `image` as [N,3,32,48], N >= 1, but has [4, 3, 16, 48]"),
        ({"features": "last.npy"}, "its channels come last, write x.transpose(0, 3, 1, 2)"),
        ({"features": "bytes.npy"}, "from 0 to 255: pixels are uint8, or floats in [0, 1]"),
        ({"features": "nan.npy"}, "that are NaN or infinite"),
        ({"features": "few.npy"}, "12 maps are too few: `held_out_maps` (=12)"),
        ({"knobs": {"crop_cells": 32}}, "(=32) asks for crops of 128x128, and the maps are 32x48"),
        ({"checkpoint": "absent.safetensors"}, "absent.safetensors"),
        ({"checkpoint": "weights.pt"}, "PyTorch's own format, which is not read"),
        (
            {"checkpoint": "tuned.safetensors"},
            "is a quantisation-aware checkpoint: the network to match must be a float",
        ),
        ({"teacher": "w.safetensors"}, "leave out --teacher, --whole and --task landmarks"),
        ({"task": "landmarks"}, "leave out --teacher, --whole and --task landmarks"),
        ({"network": None, "teacher": "w.safetensors"}, "name it with --network MODULE:NAME"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(
    folder: Path, typed: Callable[..., tuple[int, str, str]], changed: dict[str, Any], message: str
) -> None:
    images = np.load("images.npy")
    (folder / "empty").mkdir()
    (folder / "mixed").mkdir()
    np.save(folder / "mixed" / "a.npy", images)
    np.save(folder / "mixed" / "b.npy", images / np.float32(255))
    np.savez(folder / "images.npz", image=images)
    np.save(folder / "int16.npy", images.astype(np.int16))
    np.save(folder / "small.npy", images[:4, :, :16])
    np.save(folder / "last.npy", images.transpose(0, 2, 3, 1))
    np.save(folder / "bytes.npy", images.astype(np.float32))
    np.save(folder / "nan.npy", np.where(images == images[-1, 0, 0, 0], np.nan, images / np.float32(255)))
    np.save(folder / "few.npy", images[:12])
    quantized = quantize(load_network("tuned_model:make", None), torch.from_numpy(images[:1]))
    save_network_checkpoint(quantized.calibrate(torch.from_numpy(images)), folder / "tuned.safetensors")
    status, printed, said = typed(*options(**changed))
    assert (status, printed) == (2, "")
    assert message in said
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
    assert not (folder / "run").exists()


def test_two_inputs_are_answered_with_the_page_that_has_the_loop(
    folder: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    two = options("tuned_model:two", checkpoint=None)
    status, _, said = typed(*two, "--input", "other=1x3x32x48")
    assert status == 2
    assert "trains a network of one input, and 2 are declared" in said
    assert "docs/qat.md" in said
    status, _, said = typed(*two, "--input", "image=1x3x32x48")
    assert status == 2
    assert "two inputs have one name (image, image)" in said


def test_inputs_unlike_those_of_training_are_warned_of_though_the_batchnorms_are_folded(
    folder: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    """The weights were never trained, so that their BatchNorm remembers a mean of 0 and a spread of 1."""
    status, _, said = typed(*options(knobs={"steps": 1}))
    assert status == 0
    assert "warning: these inputs do not look like those that the network was trained on" in said
    (found,) = json.loads((folder / "run" / "summary.json").read_text())["input_statistics"]
    assert found["module"] == "stem.1"


def test_pixels_are_kept_as_bytes_and_floats_become_the_same_bytes(tmp_path: Path) -> None:
    images = blocks(3)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "b.npy", (images / np.float32(255)).astype(np.float16))
    declared = InputDeclaration("image", (1, 3, 32, 48), pixels=True)
    raw, real = (InputShards([tmp_path / name], declared).gather([2, 0]) for name in ("a.npy", "b.npy"))
    assert raw.dtype == real.dtype == torch.uint8
    assert torch.equal(raw, torch.from_numpy(images[[2, 0]]))
    assert torch.equal(raw, real)
