"""What the tests share: frozen functions and bundles, each made once a run."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from litehrnet_stage2.apps import example
from litehrnet_stage2.converters.write_bundle import FloatOutputs, write_bundle
from litehrnet_stage2.reference.checkpoint import save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.contract.manifest import seal
from litehrnet_stage2.reference.freeze import Proof, freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

# A shell has its background jobs ignore Ctrl-C, and they pass that on; the tests send it to programs they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = ["tests.tiers"]

Frozen: TypeAlias = tuple[IntegerFunction, Proof]
Once: TypeAlias = Callable[[str, Callable[[Path], object]], Path]

SMALL = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))
SMALL_SHAPE = (4, 16, 24)
OTHER = Stage2Config(num_channels=(16, 24), num_blocks=(1, 2), expansion=3)
OTHER_SHAPE = (32, 32, 48)


def as_arrays(model: Stage2) -> FloatOutputs:
    """A float network as the bundle wants it: arrays in, arrays out."""

    @torch.no_grad()
    def run(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        y1, y2 = model(torch.from_numpy(x))
        return y1.numpy(), y2.numpy()

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once in a run, whichever worker comes first; the others wait for it: `once(name, make)`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        done = shared / name
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                unfinished = tmp_path_factory.mktemp(name)
                make(unfinished)
                unfinished.rename(done)
        return done

    return folder


@pytest.fixture(scope="session")
def trained() -> Callable[[Stage2Config], Stage2]:
    """Make a float Stage2 whose BatchNorms have seen something: no statistic, factor or offset is neutral."""

    def make(config: Stage2Config) -> Stage2:
        torch.manual_seed(0)
        model = Stage2(config)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.8, 1.4)
                nn.init.normal_(module.bias, std=0.2)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def photographs() -> NDArray[np.float32]:
    """Features float32 `[4,32,64,128]` of photographs."""
    return example.features(4)


@pytest.fixture(scope="session")
def frozen(trained: Callable[[Stage2Config], Stage2], photographs: NDArray[np.float32]) -> Frozen:
    """The specification's Stage2, calibrated on photographs."""
    return freeze(QATStage2.from_float(trained(Stage2Config())).calibrate(torch.from_numpy(photographs)))


@pytest.fixture(scope="session")
def function(frozen: Frozen) -> IntegerFunction:
    return frozen[0]


@pytest.fixture(scope="session")
def bundle_folder(
    frozen: Frozen,
    trained: Callable[[Stage2Config], Stage2],
    photographs: NDArray[np.float32],
    once: Once,
) -> Path:
    """A bundle of the specification's Stage2 with the three exact artifacts; tests only read it."""

    def make(folder: Path) -> None:
        write_bundle(*frozen, photographs[:2], folder / "bundle", float_network=as_arrays(trained(Stage2Config())))

    return once("full-bundle", make) / "bundle"


@pytest.fixture(scope="session")
def other_bundle(trained: Callable[[Stage2Config], Stage2], once: Once) -> Path:
    """A bundle of a Stage2 in which no count or size is the specification's."""
    features = torch.randn(4, *OTHER_SHAPE, generator=torch.Generator().manual_seed(1))
    frozen = freeze(QATStage2.from_float(trained(OTHER)).calibrate(features))

    def make(folder: Path) -> None:
        write_bundle(*frozen, features.numpy(), folder / "bundle", float_network=as_arrays(trained(OTHER)))

    return once("other-bundle", make) / "bundle"


@pytest.fixture(scope="session")
def small_features() -> NDArray[np.float32]:
    """Features float32 `[4,4,16,24]` for the small Stage2."""
    return np.random.default_rng(2).standard_normal((4, *SMALL_SHAPE)).astype(np.float32)


@pytest.fixture(scope="session")
def small_frozen(trained: Callable[[Stage2Config], Stage2], small_features: NDArray[np.float32]) -> Frozen:
    """A Stage2 small enough to convert in no time."""
    return freeze(QATStage2.from_float(trained(SMALL)).calibrate(torch.from_numpy(small_features)))


@pytest.fixture(scope="session")
def small_function(small_frozen: Frozen) -> IntegerFunction:
    return small_frozen[0]


@pytest.fixture(scope="session")
def small_network(trained: Callable[[Stage2Config], Stage2]) -> FloatOutputs:
    return as_arrays(trained(SMALL))


@pytest.fixture(scope="session")
def small_bundle(
    small_frozen: Frozen,
    small_network: FloatOutputs,
    small_features: NDArray[np.float32],
    once: Once,
) -> Path:
    """A bundle of the small Stage2 with the three exact artifacts; tests only read it."""

    def make(folder: Path) -> None:
        write_bundle(*small_frozen, small_features[:2], folder / "bundle", float_network=small_network)

    return once("small-bundle", make) / "bundle"


@pytest.fixture(scope="session")
def apple_bundle(
    small_frozen: Frozen,
    small_network: FloatOutputs,
    small_features: NDArray[np.float32],
    once: Once,
) -> Path:
    """A bundle of the small Stage2 with everything that is made for Apple; tests only read it."""
    targets = ("coreml", "coreml-ane", "executorch-coreml")

    def make(folder: Path) -> None:
        write_bundle(*small_frozen, small_features[:2], folder / "bundle", float_network=small_network, targets=targets)

    return once("apple-bundle", make) / "bundle"


@pytest.fixture(scope="session")
def forge() -> Callable[..., None]:
    """Change a bundle's manifest as whoever can write hashes may: `change` it, then hash `files` and it again."""

    def run(folder: Path, change: Callable[[Any], object] = lambda values: None, *, files: Sequence[str] = ()) -> None:
        values = json.loads((folder / "manifest.json").read_text())
        change(values)
        for name in files:
            content = (folder / name).read_bytes()
            values["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        (folder / "manifest.json").write_text(json.dumps(values))
        seal(folder)

    return run


@pytest.fixture
def damaged(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle, to be damaged."""
    return shutil.copytree(small_bundle, tmp_path / "bundle")


@pytest.fixture(scope="session")
def small_checkpoint(
    trained: Callable[[Stage2Config], Stage2],
    small_features: NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[str]:
    """Arguments of `stage2 convert` that name the small Stage2 and what to calibrate it on."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(trained(SMALL), folder / "small.safetensors")
    np.save(folder / "features.npy", small_features)
    return [
        "--checkpoint",
        str(folder / "small.safetensors"),
        "--calibration",
        str(folder / "features.npy"),
    ]


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a piece of Python in a process of its own, on the argument list given."""

    def run(code: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def stage2() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a user does; its standard error has each sentence on one line."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("stage2"), *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "500", "NO_COLOR": "1"},
            timeout=300,
            check=False,
        )

    return run
