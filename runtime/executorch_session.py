"""ExecuTorch with XNNPACK, through its Python bindings (which need torch; the native runner does not)."""

from __future__ import annotations

from importlib.metadata import version
from types import ModuleType

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.session import (
    Float,
    OutputError,
    RuntimeUnavailableError,
    Session,
    SessionInfo,
    session_info,
)


class ExecuTorchSession(Session):
    """Runs the bundle's `.pte`. XNNPACK's thread pool is the process's: the last session opened sizes it."""

    def __init__(self, info: SessionInfo, program: bytes, portable_lib: ModuleType) -> None:
        super().__init__(info)
        portable_lib._unsafe_reset_threadpool(info.threads)
        self._content = program  # the module reads from this memory as long as it lives
        self._module = portable_lib._load_for_executorch_from_buffer(program)

    def _infer(self, image: Float) -> tuple[Float, Float]:
        import torch

        outputs = self._module.run_method("forward", (torch.from_numpy(image),))
        if len(outputs) != 2:
            raise OutputError(f"{self.info.artifact} returned {len(outputs)} outputs, not y1 and y2")
        return outputs[0].numpy(), outputs[1].numpy()


def open_session(bundle: Bundle, threads: int) -> Session:
    """Open the `.pte`, its hash checked before ExecuTorch sees a byte of it."""
    artifact = bundle.artifact("executorch")
    program = bundle.read(artifact)
    try:
        from executorch.extension.pybindings import portable_lib
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ExecuTorch cannot be imported ({error}): install it with `pip install 'litehrnet-stage2[convert]'`"
        ) from error
    info = session_info(bundle, runtime="executorch", version=version("executorch"), artifact=artifact, threads=threads)
    return ExecuTorchSession(info, program, portable_lib)
