"""The exact Core ML package as a session, run by the evaluator: parity without Apple hardware."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.integer_function import INPUT, OUTPUTS
from litehrnet_stage2.reference.manifest import BundleError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.coreml.evaluate import check_supported, evaluate
from litehrnet_stage2.runtime.coreml.program import Program
from litehrnet_stage2.runtime.coreml.proto import message_modules
from litehrnet_stage2.runtime.program import Float
from litehrnet_stage2.runtime.session import RuntimeUnavailableError, Session, SessionInfo, session_info


class EvaluatorSession(Session):
    """Evaluates a package's program at the program's own precision, float32 at the border."""

    def __init__(self, info: SessionInfo, program: Program) -> None:
        super().__init__(info)
        self.program = program

    def _infer(self, image: Float) -> tuple[Float, Float]:
        found = evaluate(self.program, {INPUT: image})
        y1, y2 = (found[name].astype(np.float32, copy=False) for name in OUTPUTS)
        return y1, y2


def open_session(bundle: Bundle, threads: int) -> EvaluatorSession:
    """Open `stage2.mlpackage`; numpy decides itself how many threads its BLAS uses."""
    return open_evaluator(bundle, runtime="coreml-eval", target="coreml", threads=threads)


def open_evaluator(bundle: Bundle, *, runtime: str, target: str, threads: int) -> EvaluatorSession:
    """Open a target's package, the hash of every file checked before any is parsed.

    Raises:
        BundleError: the package is not what the manifest says, damaged, or holds what cannot be evaluated.
        RuntimeUnavailableError: coremltools, whose messages describe a package, is not installed.
    """
    artifact = bundle.artifact(target)
    with tempfile.TemporaryDirectory(prefix="litehrnet-stage2-") as folder:
        package = bundle.extract(artifact, Path(folder))
        try:
            program = Program.load(package)
            check_supported(program)
        except ModuleNotFoundError as error:
            raise RuntimeUnavailableError(f"{runtime} cannot run: {error}") from error
        except ValueError as error:
            reason = str(error).replace(f"{Path(folder).resolve()}/", "").replace(f"{folder}/", "")
            raise BundleError(f"{bundle.folder / artifact} cannot be evaluated: {reason}") from error
    names = ([tensor.name for tensor in program.inputs], sorted(tensor.name for tensor in program.outputs))
    if names != ([INPUT], sorted(OUTPUTS)):
        raise BundleError(f"{bundle.folder / artifact} maps {names[0]} to {names[1]}, not {INPUT} to y1 and y2")
    info = session_info(bundle, runtime=runtime, version=np.__version__, artifact=artifact, threads=threads)
    return EvaluatorSession(info, program)


def library_version() -> str:
    """Version of numpy, which evaluates.

    Raises:
        RuntimeUnavailableError: coremltools, whose messages describe a package, is not installed.
    """
    try:
        message_modules()
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(f"Core ML packages cannot be evaluated: {error}") from error
    return np.__version__
