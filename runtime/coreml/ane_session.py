"""The Neural Engine's package as a session, run by the evaluator in the package's own float16."""

from __future__ import annotations

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.coreml.session import EvaluatorSession, open_evaluator


def open_session(bundle: Bundle, threads: int) -> EvaluatorSession:
    """Open `stage2-ane.mlpackage`: another function than the integer one, judged by `check_fidelity`."""
    return open_evaluator(bundle, runtime="coreml-eval-ane", target="coreml-ane", threads=threads)
