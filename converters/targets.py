"""The artifact formats: a fourth is one new file beside these, and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from litehrnet_stage2.converters.coverage import Coverage

Convert = Callable[..., Coverage]
"""`convert(function, path, *, height, width)` writes an artifact and returns what it covers."""


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
    "coreml": Target("stage2.mlpackage", "litehrnet_stage2.converters.coreml"),
}
