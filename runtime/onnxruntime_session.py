"""ONNX Runtime on the CPU."""

from __future__ import annotations

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.session import (
    Float,
    OutputError,
    RuntimeUnavailableError,
    Session,
    SessionInfo,
    session_info,
)


class OnnxRuntimeSession(Session):
    """Runs the bundle's `.onnx`."""

    def __init__(self, info: SessionInfo, model: bytes) -> None:
        super().__init__(info)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = info.threads
        options.inter_op_num_threads = 1
        # x86 without VNNI multiplies uint8 by int8 in instructions that saturate at 16 bits, which is not the
        # function. This has ONNX Runtime multiply uint8 by uint8 there, and changes nothing elsewhere.
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [spec.name for spec in info.outputs]

    def _infer(self, image: Float) -> tuple[Float, Float]:
        outputs = self._session.run(self._names, {self.info.input.name: image})
        if len(outputs) != 2:
            raise OutputError(f"{self.info.artifact} returned {len(outputs)} outputs, not y1 and y2")
        return outputs[0], outputs[1]


def open_session(bundle: Bundle, threads: int) -> Session:
    """Open the `.onnx`, its hash checked before ONNX Runtime sees a byte of it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime cannot be imported ({error}): install it with `pip install onnxruntime`"
        ) from error
    artifact = bundle.artifact("onnx")
    model = bundle.read(artifact)
    info = session_info(
        bundle, runtime="onnxruntime", version=onnxruntime.__version__, artifact=artifact, threads=threads
    )
    return OnnxRuntimeSession(info, model)
