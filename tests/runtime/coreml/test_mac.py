"""What only a Mac can show: the packages in Core ML itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.runtime import Bundle, check_fidelity, check_parity, open_session
from litehrnet_stage2.runtime.coreml import mac_facts
from litehrnet_stage2.runtime.coreml.predict import UNITS, predict

pytestmark = pytest.mark.skipif(sys.platform != "darwin", reason="Core ML predicts on macOS only")


def test_the_exact_package_gives_the_golden_codes_on_the_cpu(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    assert check_parity(open_session(bundle, "coreml"), bundle.golden()).passed


def test_the_specifications_exact_package_gives_the_golden_codes_on_the_cpu(bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    assert check_parity(open_session(bundle, "coreml"), bundle.golden()).passed


@pytest.mark.parametrize("channels", [1, 3])
def test_the_package_with_images_gives_the_golden_codes_on_the_cpu(tmp_path: Path, channels: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 2, 1)).eval()
    images = np.random.default_rng(0).integers(0, 256, (4, channels, 32, 48)).astype(np.uint8)
    convert_network(network, tmp_path / "bundle", images, targets=["coreml-image"])
    bundle = Bundle.open(tmp_path / "bundle")
    assert check_parity(open_session(bundle, "coreml-image"), bundle.golden()).passed


def test_the_neural_engines_package_keeps_its_fidelity(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    assert check_fidelity(open_session(bundle, "coreml-ane"), bundle.golden()).passed


def test_core_ml_on_the_cpu_agrees_with_the_evaluator(apple_bundle: Path) -> None:
    """Core ML may keep more bits between float16 operators, so codes flip: the two differ like two roundings."""
    bundle = Bundle.open(apple_bundle)
    x = bundle.golden().x[:2]
    found = predict(bundle.folder / "stage2-ane.mlpackage", "cpu", {"features": x}, ["y1", "y2"]).outputs
    for y, name in zip(open_session(bundle, "coreml-eval-ane").run(x), ("y1", "y2"), strict=True):
        noise = np.square(found[name] - y).sum() / np.square(y).sum()
        assert noise < 10 ** (-20 / 10)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_reports_its_times_its_plan_and_the_machine(apple_bundle: Path, unit: str) -> None:
    x = Bundle.open(apple_bundle).golden().x[:1]
    reply = predict(apple_bundle / "stage2-ane.mlpackage", unit, {"features": x}, ["y1", "y2"], queries=5).reply
    assert min(reply.compile_ms, reply.load_ms, reply.first_ms, *reply.samples_ms) > 0
    assert len(reply.samples_ms) >= 5
    assert reply.host.os_build
    assert {reply.thermal_before, reply.thermal_after} <= set(mac_facts.THERMAL_STATES)
    if mac_facts.version() >= (14, 4):
        assert reply.plan
        assert {one.preferred for one in reply.plan} <= {None, "cpu", "gpu", "ne"}
        assert any(one.operator.endswith("conv") for one in reply.plan)
