"""The front door: what the command line does, in Python. Names are imported on first use.

    from litehrnet_stage2 import Bundle, check_bundle, convert, open_session

    convert(Path("bundle"), checkpoint=Path("mine.safetensors"), calibration="shards/*.npy")
    assert all(result.passed for result in check_bundle(Path("bundle")))
    session = open_session(Bundle.open(Path("bundle")), "onnxruntime")

Running an artifact takes numpy and its runtime, and no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from litehrnet_stage2.reference.lazy import importer

if TYPE_CHECKING:
    from litehrnet_stage2.apps.check_bundle import check_bundle
    from litehrnet_stage2.apps.convert import convert_to_bundle as convert
    from litehrnet_stage2.apps.convert_network import convert_network
    from litehrnet_stage2.apps.evaluation import evaluate
    from litehrnet_stage2.apps.qat.features import capture_features
    from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
    from litehrnet_stage2.reference.config import Stage2Config
    from litehrnet_stage2.reference.errors import InputError, Stage2Error
    from litehrnet_stage2.reference.freeze import freeze
    from litehrnet_stage2.reference.network import quantize
    from litehrnet_stage2.reference.qat import QATStage2
    from litehrnet_stage2.reference.stage2 import Stage2
    from litehrnet_stage2.reference.version import __version__
    from litehrnet_stage2.runtime.bundle import Bundle
    from litehrnet_stage2.runtime.parity import check_parity
    from litehrnet_stage2.runtime.session import open_session

# ONNX Runtime reports what it does to its maker unless it is told not to before it is loaded. Processes that this one
# starts inherit it; who wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {
    "convert": "apps.convert:convert_to_bundle",
    "check_bundle": "apps.check_bundle",
    "convert_network": "apps.convert_network",
    "quantize": "reference.network",
    "Bundle": "runtime.bundle",
    "InputError": "reference.errors",
    "QATStage2": "reference.qat",
    "Stage2": "reference.stage2",
    "Stage2Config": "reference.config",
    "Stage2Error": "reference.errors",
    "__version__": "reference.version",
    "capture_features": "apps.qat.features",
    "check_parity": "runtime.parity",
    "evaluate": "apps.evaluation",
    "freeze": "reference.freeze",
    "load_checkpoint": "reference.checkpoint",
    "open_session": "runtime.session",
    "save_checkpoint": "reference.checkpoint",
}
__all__ = [  # resolved by __getattr__
    "Bundle",
    "InputError",
    "QATStage2",
    "Stage2",
    "Stage2Config",
    "Stage2Error",
    "__version__",
    "capture_features",
    "check_bundle",
    "check_parity",
    "convert",
    "convert_network",
    "evaluate",
    "freeze",
    "load_checkpoint",
    "open_session",
    "quantize",
    "save_checkpoint",
]

__getattr__ = importer(__name__, _HOME)
