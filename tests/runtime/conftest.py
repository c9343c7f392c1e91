"""What the device tests share: the small bundle opened, the runner, and tools that must be there."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from litehrnet_stage2.converters import to_executorch, to_executorch_codes, xnnpack_lowering
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.converters.write_bundle import write_bundle
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import DeviceError, RunnerBuild, build_runner, prepare_emulation
from litehrnet_stage2.runtime.devices.emulation import ArmPython
from litehrnet_stage2.runtime.devices.toolchain import host_arch


def cannot_run(reason: str) -> NoReturn:
    """Skip, or fail where every device test has to run."""
    if os.environ.get("LITEHRNET_STAGE2_REQUIRE_DEVICES"):
        pytest.fail(f"LITEHRNET_STAGE2_REQUIRE_DEVICES is set, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def need():
    """A function that skips the test unless a program is installed: `need(program, debian_package)`."""

    def check(program: str, package: str) -> str:
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
        return found or cannot_run(f"`{program}` is not installed: apt-get install {package}")

    return check


@pytest.fixture(scope="session")
def runner(need) -> RunnerBuild:
    """The native runner of this machine."""
    need("cmake", "cmake")
    need("g++", "g++")
    try:
        return build_runner(host_arch())
    except DeviceError as error:
        cannot_run(str(error))


@pytest.fixture(scope="session")
def arm_runner(need) -> RunnerBuild:
    """The native runner for 64-bit Arm, and an emulator to run it."""
    need("qemu-aarch64", "qemu-user")
    need("aarch64-linux-gnu-g++-12", "g++-12-aarch64-linux-gnu")
    need("cmake", "cmake")
    try:
        return build_runner("aarch64")
    except DeviceError as error:
        cannot_run(str(error))


@pytest.fixture(scope="session")
def arm_python() -> ArmPython:
    """An arm64 Python with onnxruntime, for the emulator."""
    try:
        return prepare_emulation()
    except DeviceError as error:
        cannot_run(str(error))


@pytest.fixture(scope="session")
def bundle(small_bundle: Path) -> Bundle:
    """The small bundle, opened."""
    return Bundle.open(small_bundle)


@pytest.fixture(scope="session")
def pte(bundle: Bundle) -> Path:
    """Its ExecuTorch program."""
    return bundle.folder / bundle.artifact("executorch")


@pytest.fixture
def sample(bundle: Bundle, tmp_path: Path) -> Path:
    """Three samples for it, in one `.npy`."""
    path = tmp_path / "x.npy"
    np.save(path, bundle.golden().x[:3])
    return path


@pytest.fixture(scope="session")
def codes_bundle(small_frozen, small_features, small_network, once) -> Bundle:
    """The small Stage2 with float32 at the border of its artifacts, and with codes."""

    def make(folder: Path) -> None:
        targets = [row.artifact.name for row in DEVICE_RUNTIMES.values() if row.artifact]
        write_bundle(*small_frozen, small_features[:2], folder / "bundle", float_network=small_network, targets=targets)

    return Bundle.open(once("codes-bundle", make) / "bundle")


@pytest.fixture(scope="session")
def in_place(
    trained: Callable[[Stage2Config], Stage2], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], tuple[Path, np.ndarray]]:
    """Make a `.pte` of `codes` or `float`s, so many channels of 6x10, read where the caller has them; and its input."""

    @functools.cache
    def make(border: str, channels: int) -> tuple[Path, np.ndarray]:
        config = Stage2Config(in_channels=channels, num_channels=(4, 8), num_blocks=(0, 0))
        features = torch.randn(2, channels, 6, 10, generator=torch.Generator().manual_seed(1))
        function, _ = freeze(QATStage2.from_float(trained(config)).calibrate(features))
        path = tmp_path_factory.mktemp("in_place") / "stage2.pte"
        convert = {"codes": to_executorch_codes.convert, "float": to_executorch.convert}[border]
        with pytest.MonkeyPatch.context() as patch:
            if channels % xnnpack_lowering.READ_AT_ONCE:  # it would be copied, rightly
                patch.setattr(xnnpack_lowering, "READ_AT_ONCE", 1)
            convert(function, path, Deployment())
        return path, np.zeros((1, channels, 6, 10), np.int8 if border == "codes" else np.float32)

    return make
