"""The artifact formats: a fourth is one new file beside these, and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.reference.integer_function import IntegerFunction

COREML_TARGETS = ("iOS17", "iOS18")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What an artifact is made for.

    Attributes:
        height, width: of the features it takes, in cells of the 1/4 grid.
        coreml_target: the oldest system that the Neural Engine's package runs on, of `COREML_TARGETS`; iOS 18
            writes int8 weights in another encoding, of the same values.
    """

    height: int
    width: int
    coreml_target: str = "iOS17"

    def __post_init__(self) -> None:
        if self.coreml_target not in COREML_TARGETS:
            raise ValueError(f"`coreml_target` (={self.coreml_target!r}) must be one of {', '.join(COREML_TARGETS)}")


Convert: TypeAlias = Callable[[IntegerFunction, Path, Deployment], Coverage]
"""Writes an artifact and returns what it covers."""


@dataclass(frozen=True)
class Target:
    """An artifact format: the file (or folder) it makes and the module that has its `convert`."""

    artifact: str
    module: str

    def load(self) -> Convert:
        """Import the converter, which may take seconds.

        Raises:
            ImportError: a package of the extra `convert` is missing.
        """
        return cast(Convert, importlib.import_module(self.module).convert)


TARGETS = {
    "executorch": Target("stage2.pte", "litehrnet_stage2.converters.executorch"),
    "onnx": Target("stage2.onnx", "litehrnet_stage2.converters.onnx"),
    "executorch-codes": Target("stage2-codes.pte", "litehrnet_stage2.converters.executorch_codes"),
    "onnx-codes": Target("stage2-codes.onnx", "litehrnet_stage2.converters.onnx_codes"),
    "coreml": Target("stage2.mlpackage", "litehrnet_stage2.converters.coreml"),
    "coreml-ane": Target("stage2-ane.mlpackage", "litehrnet_stage2.converters.coreml_ane"),
    "executorch-coreml": Target("stage2-coreml.pte", "litehrnet_stage2.converters.executorch_coreml"),
}

DEFAULT_TARGETS = ("executorch", "onnx", "coreml")
"""One artifact a runtime, of the integer function. The `-codes` ones compute it too, with int8 codes at their border;
the Neural Engine's compute their own."""


def check_targets(names: Sequence[str]) -> None:
    """Check the names of artifacts to make.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    if not names:
        raise ValueError(f"no target was named: the targets are {', '.join(TARGETS)}")
    if unknown := [name for name in names if name not in TARGETS]:
        raise ValueError(f"unknown target {unknown[0]!r}: the targets are {', '.join(TARGETS)}")
