"""Sessions: one way to run the integer function, whatever runtime does it."""

from __future__ import annotations

import importlib
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from litehrnet_stage2.reference.errors import InputError, Stage2Error
from litehrnet_stage2.reference.integer_function import OUTPUTS, Quantization
from litehrnet_stage2.reference.manifest import TensorSpec
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.program import Array, Codes, CodesProgram, Float, Program

MOST_THREADS = 256


class RuntimeUnavailableError(Stage2Error):
    """A runtime is not installed here; the message says what to install."""


class OutputError(Stage2Error):
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
    """An opened artifact. Threads may share it: what they ask is done one after another.

    A batch is run image by image: the artifacts are made for one, as a phone has it. For work in parallel,
    give each thread a session of its own.
    """

    def __init__(self, info: SessionInfo) -> None:
        self.info = info
        self._lock = threading.Lock()

    def run(self, features: Float, *, out: tuple[Float, Float] | None = None) -> tuple[Float, Float]:
        """Features float32 `[N, in_channels, H, W]` -> `Y1 [N,C1,H,W]`, `Y2 [N,C2,H/2,W/2]`, float32.

        Args:
            features: any batch.
            out: arrays of the outputs' shapes to fill and return, for callers that loop.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
        """
        self.check(features)
        y1, y2 = self._outputs(len(features), np.float32, out)
        with self._lock:
            for i, image in enumerate(features):
                self._store(self._infer(image[None]), (y1, y2), i)
        return y1, y2

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
        self._check_array(features, np.float32)
        if not np.isfinite(features).all():
            bad = int(np.count_nonzero(~np.isfinite(features)))
            raise InputError(f"features hold {bad} values that are NaN or infinite: every value must be finite")

    def _check_array(self, features: Array, dtype: type) -> None:
        expected = self.info.input.shape[1:]
        if features.ndim != 4 or features.shape[1:] != expected or len(features) == 0:
            raise InputError(
                f"features must have shape [N,{','.join(map(str, expected))}], N >= 1, but have {list(features.shape)}"
            )
        if features.dtype != dtype:
            name = np.dtype(dtype).name
            raise InputError(f"features must be {name}, but are {features.dtype}: convert them with .astype('{name}')")

    @abstractmethod
    def _infer(self, image: Float) -> tuple[Float, Float]:
        """One image `[1, in_channels, H, W]`, already checked; the results are copied before the next call."""

    def _outputs(self, count: int, dtype: type, out: tuple[Array, Array] | None) -> tuple[Array, Array]:
        """New arrays for the outputs of `count` images, or `out`, checked."""
        shapes = [(count, *spec.shape[1:]) for spec in self.info.outputs]
        if out is None:
            return np.empty(shapes[0], dtype), np.empty(shapes[1], dtype)
        for name, array, shape in zip(OUTPUTS, out, shapes, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"`out` for {name} is {array.dtype} {list(array.shape)}: it must be "
                    f"{np.dtype(dtype)} {list(shape)}, as `run` would make it"
                )
        return out

    def _store(self, found: tuple[Array, Array], out: tuple[Array, Array], index: int) -> None:
        """Copy one image's outputs to their place in a batch."""
        for spec, y, array in zip(self.info.outputs, found, out, strict=True):
            if y.shape[1:] != spec.shape[1:]:
                raise OutputError(f"`{spec.name}` has shape {list(y.shape)}, the manifest says {list(spec.shape)}")
            array[index] = y[0]


class ProgramSession(Session):
    """A session on a program: quantises and lays out where the program asks for it."""

    def __init__(self, info: SessionInfo, program: Program) -> None:
        super().__init__(info)
        self._program = program

    def _infer(self, image: Float) -> tuple[Float, Float]:
        return self._program.finish(self._program.run(self._program.prepare(image)))


class CodesSession(ProgramSession):
    """A session on an artifact with int8 codes at its border; also runs on codes alone."""

    _program: CodesProgram

    def __init__(self, info: SessionInfo, program: CodesProgram) -> None:
        super().__init__(info, program)

    def run_on_codes(self, codes: Codes, *, out: tuple[Codes, Codes] | None = None) -> tuple[Codes, Codes]:
        """Codes int8 `[N, in_channels, H, W]` -> the codes of `y1` and `y2`, int8; nothing is quantised.

        Args:
            codes: any batch, quantised with `info.input`.
            out: arrays of the outputs' shapes to fill and return.

        Raises:
            ValueError: a wrong shape or dtype.
        """
        self._check_array(codes, np.int8)
        y1, y2 = self._outputs(len(codes), np.int8, out)
        with self._lock:
            for i, image in enumerate(codes):
                found = self._program.run(self._program.from_codes(image[None]))
                self._store(self._program.to_codes(found), (y1, y2), i)
        return y1, y2


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
    "executorch-codes": "litehrnet_stage2.runtime.executorch_codes_session",
    "onnxruntime-codes": "litehrnet_stage2.runtime.onnxruntime_codes_session",
    "coreml-eval": "litehrnet_stage2.runtime.coreml.session",
    "coreml-eval-ane": "litehrnet_stage2.runtime.coreml.ane_session",
    "coreml": "litehrnet_stage2.runtime.coreml.mac_session",
    "coreml-ane": "litehrnet_stage2.runtime.coreml.mac_ane_session",
}
"""Module of each runtime; it has `open_session(bundle, threads)`."""


def check_threads(threads: int) -> None:
    """Check a number of threads before a library tries to start them, and ends the process where it cannot.

    Raises:
        InputError: it is below 1, or above what any device has cores for.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"`threads` (={threads}) must be at least 1 and at most {MOST_THREADS}")


def open_session(bundle: Bundle | Path, runtime: str, *, threads: int = 1) -> Session:
    """Open a bundle's artifact in a runtime.

    Raises:
        ValueError: an unknown runtime or a thread count below 1.
        BundleError: the artifact is missing, or not what the manifest says.
        RuntimeUnavailableError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"unknown runtime {runtime!r}: the runtimes are {', '.join(RUNTIMES)}")
    check_threads(threads)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    module = importlib.import_module(RUNTIMES[runtime])
    return cast(Session, module.open_session(opened, threads))


def session_info(bundle: Bundle, *, runtime: str, version: str, artifact: str, threads: int) -> SessionInfo:
    """The info of a session on an artifact."""
    manifest = bundle.manifest
    return SessionInfo(
        runtime=runtime,
        version=version,
        artifact=artifact,
        sha256=bundle.sha256(artifact),
        threads=threads,
        input=manifest.input,
        outputs=manifest.outputs,
    )
