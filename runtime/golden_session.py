"""The golden evaluator as a session: numpy alone, on any machine."""

from __future__ import annotations

import numpy as np

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.manifest import FUNCTION
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.program import Float
from litehrnet_stage2.runtime.session import Session, SessionInfo, session_info


class GoldenSession(Session):
    """Evaluates the bundle's integer function."""

    def __init__(self, info: SessionInfo, function: IntegerFunction) -> None:
        super().__init__(info)
        self._function = function

    def _infer(self, image: Float) -> tuple[Float, Float]:
        codes = golden.evaluate(self._function, self._function.input_quantization.quantize(image))
        y1, y2 = (q.dequantize(codes[name]) for name, q in self._function.output_quantization.items())
        return y1, y2


def open_session(bundle: Bundle, threads: int) -> Session:
    """Open the function; numpy decides itself how many threads its BLAS uses."""
    function = bundle.function()
    info = session_info(bundle, runtime="golden", version=np.__version__, artifact=FUNCTION, threads=threads)
    return GoldenSession(info, function)
