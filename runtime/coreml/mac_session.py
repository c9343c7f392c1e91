"""Core ML itself as a session: the exact package on a Mac's CPU, whose codes have to be equal."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.integer_function import OUTPUTS
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.coreml.predict import WORKER, predict
from litehrnet_stage2.runtime.program import Float
from litehrnet_stage2.runtime.session import RuntimeUnavailableError, Session, SessionInfo, session_info


class MacSession(Session):
    """Predicts on one set of compute units, a process for each batch.

    Args:
        info: what runs.
        bundle: holds the package; a private copy of what was checked is what Core ML reads.
        unit: a key of `predict.UNITS`.
        worker: the command of the process that predicts.
    """

    def __init__(self, info: SessionInfo, bundle: Bundle, unit: str, *, worker: Sequence[str] = WORKER) -> None:
        super().__init__(info)
        self._folder = tempfile.TemporaryDirectory(prefix="litehrnet-stage2-")
        self._package = bundle.extract(info.artifact, Path(self._folder.name))
        self._unit = unit
        self._worker = worker

    def run(self, features: Float, *, out: tuple[Float, Float] | None = None) -> tuple[Float, Float]:
        """As `Session.run`, all images in one process.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
            PredictionError: Core ML gave no outputs.
        """
        self.check(features)
        y1, y2 = self._outputs(len(features), np.float32, out)
        with self._lock:
            found = self._infer(features)
        for i in range(len(features)):
            self._store((found[0][i : i + 1], found[1][i : i + 1]), (y1, y2), i)
        return y1, y2

    def _infer(self, image: Float) -> tuple[Float, Float]:
        outputs = predict(self._package, self._unit, image, worker=self._worker).outputs
        y1, y2 = (outputs[name] for name in OUTPUTS)
        return y1, y2


def open_session(bundle: Bundle, threads: int) -> MacSession:
    """Open `stage2.mlpackage` on the CPU; Core ML decides itself how many threads it uses."""
    return open_on_mac(bundle, runtime="coreml", target="coreml", unit="cpu", threads=threads)


def open_on_mac(bundle: Bundle, *, runtime: str, target: str, unit: str, threads: int) -> MacSession:
    """Open a target's package on a set of compute units.

    Raises:
        RuntimeUnavailableError: this is no Mac, or coremltools is not installed.
        BundleError: the package is not what the manifest says.
    """
    evaluator = runtime.replace("coreml", "coreml-eval")
    check_mac(
        f"stage2 parity {bundle.folder} --runtime {runtime}",
        f"`--runtime {evaluator}` evaluates the same package here",
    )
    artifact = bundle.artifact(target)
    version = metadata.version("coremltools")
    info = session_info(bundle, runtime=runtime, version=version, artifact=artifact, threads=threads)
    return MacSession(info, bundle, unit)


def check_mac(command: str, instead: str) -> None:
    """Check that Core ML can be asked here; `command` is what to run where it can, `instead` what can be had here.

    Raises:
        RuntimeUnavailableError: this is no Mac, or coremltools is not installed.
    """
    if (system := platform.system()) != "Darwin":
        raise RuntimeUnavailableError(
            f"Core ML itself needs a Mac with macOS 14 or later, and this is {system}: copy the bundle to one, "
            f"install with `pip install -e '.[convert]'`, and run `{command}` there; {instead}"
        )
    if importlib.util.find_spec("coremltools") is None:
        raise RuntimeUnavailableError(
            "Core ML is reached through coremltools, which is missing: pip install -e '.[convert]'"
        )


def library_version() -> str:
    """Version of coremltools.

    Raises:
        RuntimeUnavailableError: this is no Mac, or coremltools is not installed.
    """
    check_mac("stage2 parity", "its packages are evaluated operator by operator here")
    return metadata.version("coremltools")
