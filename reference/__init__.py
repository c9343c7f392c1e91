"""The network and the meaning of its int8. Names below are imported on first use, so that numpy alone will do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litehrnet_stage2.reference.lazy import importer

if TYPE_CHECKING:
    from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
    from litehrnet_stage2.reference.config import Stage2Config
    from litehrnet_stage2.reference.freeze import FreezeError
    from litehrnet_stage2.reference.integer_function import IntegerFunction
    from litehrnet_stage2.reference.qat import QATStage2
    from litehrnet_stage2.reference.quantizers import Mode, learn_step_sizes, set_mode
    from litehrnet_stage2.reference.stage2 import Stage2

_HOME = {
    "FreezeError": "freeze",
    "IntegerFunction": "integer_function",
    "Mode": "quantizers",
    "QATStage2": "qat",
    "Stage2": "stage2",
    "Stage2Config": "config",
    "learn_step_sizes": "quantizers",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "set_mode": "quantizers",
}
__all__ = [  # resolved by __getattr__
    "FreezeError",
    "IntegerFunction",
    "Mode",
    "QATStage2",
    "Stage2",
    "Stage2Config",
    "learn_step_sizes",
    "load_checkpoint",
    "save_checkpoint",
    "set_mode",
]

__getattr__ = importer(__name__, _HOME)
