"""A converter is a function of this signature, told what an artifact is made for. `contract.artifacts` lists them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.reference.contract.artifacts import Artifact
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import IntegerFunction

COREML_TARGETS = ("iOS17", "iOS18")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What an artifact is made for.

    Attributes:
        coreml_target: the oldest system that the Neural Engine's package runs on, of `COREML_TARGETS`; iOS 18
            writes int8 weights in another encoding, of the same values.
    """

    coreml_target: str = "iOS17"

    def __post_init__(self) -> None:
        if self.coreml_target not in COREML_TARGETS:
            raise InputError(f"`coreml_target` (={self.coreml_target!r}) must be one of {', '.join(COREML_TARGETS)}")


Convert: TypeAlias = Callable[[IntegerFunction, Path, Deployment], Coverage]
"""Writes an artifact and returns what it covers."""


def load_converter(artifact: Artifact) -> Convert:
    """Import an artifact's converter, which may take seconds.

    Raises:
        ImportError: a package of the artifact's extra is missing.
    """
    return cast(Convert, importlib.import_module(f"litehrnet_stage2.converters.{artifact.converter}").convert)
