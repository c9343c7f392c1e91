"""ExecuTorch, int8 codes in and out, channels last."""

from __future__ import annotations

from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.executorch_session import library_version, open_program
from litehrnet_stage2.runtime.program import CodesProgram
from litehrnet_stage2.runtime.session import CodesSession, session_info


def open_session(bundle: Bundle, threads: int) -> CodesSession:
    """Open the artifact with codes at its border, its hash checked before ExecuTorch sees a byte of it."""
    artifact = bundle.artifact("executorch-codes")
    content = bundle.read(artifact)
    manifest = bundle.manifest
    info = session_info(
        bundle, runtime="executorch-codes", version=library_version(), artifact=artifact, threads=threads
    )
    program = open_program(content, threads, exact=True)
    border = ARTIFACTS["executorch-codes"].border
    return CodesSession(info, CodesProgram(program, manifest.input, manifest.outputs, border))
