"""Sessions: one way to run the integer function, whatever runtime does it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.reference.manifest import TensorSpec
from litehrnet_stage2.runtime.bundle import Bundle

Float = NDArray[np.float32]
Codes = NDArray[np.int8]


class RuntimeUnavailableError(RuntimeError):
    """A runtime is not installed here; the message says what to install."""


class OutputError(RuntimeError):
    """A runtime returned something that is not the function's output at all."""


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What runs.

    Attributes:
        runtime: its name here.
        version: of the runtime.
        artifact: the file in the bundle, and its `sha256`.
        threads: that the runtime was told to use.
        input, outputs: names, shapes (batch 1), quantisation.
    """

    runtime: str
    version: str
    artifact: str
    sha256: str
    threads: int
    input: TensorSpec
    outputs: tuple[TensorSpec, TensorSpec]


class Session(ABC):
    """An opened artifact. Not thread-safe: give each thread a session of its own.

    A batch is run image by image: the artifacts are made for one, as a phone has it.
    """

    def __init__(self, info: SessionInfo) -> None:
        self.info = info

    def run(self, features: Float) -> tuple[Float, Float]:
        """Features float32 `[N, in_channels, H, W]` -> `Y1 [N,C1,H,W]`, `Y2 [N,C2,H/2,W/2]`, float32.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
        """
        self.check(features)
        y1, y2 = zip(*(self._infer(image[None]) for image in features), strict=True)
        return np.concatenate(y1), np.concatenate(y2)

    def run_codes(self, features: Float) -> tuple[Codes, Codes]:
        """Like `run`, but the int8 codes of both outputs.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
            OutputError: the runtime's floats do not lie on the output grid, or have another shape.
        """
        y1, y2 = (to_codes(y, spec) for y, spec in zip(self.run(features), self.info.outputs, strict=True))
        return y1, y2

    def check(self, features: Float) -> None:
        """Check features against the artifact's input.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
        """
        expected = self.info.input.shape[1:]
        if features.ndim != 4 or features.shape[1:] != expected or len(features) == 0:
            raise ValueError(
                f"features must have shape [N,{','.join(map(str, expected))}], N >= 1, but have {list(features.shape)}"
            )
        if features.dtype != np.float32:
            raise ValueError(
                f"features must be float32, but are {features.dtype}: convert them with .astype('float32')"
            )
        if not np.isfinite(features).all():
            bad = int(np.count_nonzero(~np.isfinite(features)))
            raise ValueError(f"features hold {bad} values that are NaN or infinite: every value must be finite")

    @abstractmethod
    def _infer(self, image: Float) -> tuple[Float, Float]:
        """One image `[1, in_channels, H, W]`, already checked."""


def to_codes(y: Float, spec: TensorSpec) -> Codes:
    """The codes that float outputs `[N,C,H,W]` stand for.

    Raises:
        OutputError: a wrong shape, or values off the grid by more than float32 rounding explains.
    """
    if y.shape[1:] != spec.shape[1:]:
        raise OutputError(f"`{spec.name}` has shape {list(y.shape)}, the manifest says {list(spec.shape)}")
    q = Quantization(np.float32(spec.scale), spec.zero_point)
    codes = q.quantize(y)
    worst = float(np.abs(y / q.scale - (codes.astype(np.float32) - q.zero_point)).max())
    if not worst < 1e-3:
        raise OutputError(
            f"`{spec.name}` is {worst:.3g} steps off its grid of scale {spec.scale:.6g}: the artifact computes "
            "another function than its manifest says"
        )
    return codes


RUNTIMES = {
    "golden": "litehrnet_stage2.runtime.golden_session",
    "executorch": "litehrnet_stage2.runtime.executorch_session",
    "onnxruntime": "litehrnet_stage2.runtime.onnxruntime_session",
}
"""Module of each runtime; it has `open_session(bundle, threads)`."""


def open_session(bundle: Bundle | Path, runtime: str, *, threads: int = 1) -> Session:
    """Open a bundle's artifact in a runtime.

    Raises:
        ValueError: an unknown runtime or a thread count below 1.
        BundleError: the artifact is missing, or not what the manifest says.
        RuntimeUnavailableError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"unknown runtime {runtime!r}: the runtimes are {', '.join(RUNTIMES)}")
    if threads < 1:
        raise ValueError(f"`threads` (={threads}) must be at least 1")
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    module = importlib.import_module(RUNTIMES[runtime])
    return cast(Session, module.open_session(opened, threads))


def session_info(bundle: Bundle, *, runtime: str, version: str, artifact: str, threads: int) -> SessionInfo:
    """The info of a session on an artifact that is one file."""
    manifest = bundle.manifest
    return SessionInfo(
        runtime=runtime,
        version=version,
        artifact=artifact,
        sha256=manifest.files[artifact].sha256,
        threads=threads,
        input=manifest.input,
        outputs=manifest.outputs,
    )
