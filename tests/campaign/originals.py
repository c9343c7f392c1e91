"""The honest files that the campaign damages: a small network, its checkpoints, features, bundle and a result."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from litehrnet_stage2 import QATStage2, Stage2, Stage2Config, save_checkpoint
from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
from litehrnet_stage2.reference.network_checkpoint import save_network_checkpoint

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))
TARGETS = "executorch,onnx,coreml,onnx-codes"


def make(folder: Path) -> None:
    """Write all of them: `bundle/`, `float.*`, `qat.*`, `network.*`, `features.npy`, `result.json`."""
    torch.manual_seed(0)
    features = np.random.default_rng(0).standard_normal((4, 4, 16, 24)).astype(np.float32)
    np.save(folder / "features.npy", features)
    network = Stage2(SMALL).eval()
    save_checkpoint(network, folder / "float.safetensors")
    save_checkpoint(QATStage2.from_float(network).calibrate(torch.from_numpy(features)), folder / "qat.safetensors")
    save_network_checkpoint(quantised_network(), folder / "network.safetensors")
    stage2 = Path(sys.executable).with_name("stage2")
    words = ["convert", "--checkpoint", folder / "float.safetensors", "--calibration", folder / "features.npy"]
    subprocess.run([stage2, *words, "--targets", TARGETS, "--out", folder / "bundle"], check=True, capture_output=True)
    shutil.copy(ROOT / "benchmarks" / "x86-64.json", folder / "result.json")


def quantised_network() -> QuantizedNetwork:
    """A network of two convolutions, calibrated."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 2, 1)).eval()
    return quantize(network, torch.zeros(1, 3, 8, 8)).calibrate(torch.randn(4, 3, 8, 8))
