"""Baselines in ONNX: fp32, int8 by ONNX Runtime's static quantisation, and the frozen module exported unaided."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from litehrnet_stage2.reference.float_module import FloatModule
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.qdq_module import FloatQDQModule, QDQModule
from litehrnet_stage2.runtime.program import Floats

OPSET = 18  # the exporter's own; what it calls default


def build_fp32(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write the float network."""
    _export(FloatModule(function), function, inputs, path)


def build_stock_int8(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write what `quantize_static` gives with its default settings, after the preparation its manual asks for."""
    with tempfile.TemporaryDirectory() as temporary:
        floating, prepared = Path(temporary, "fp32.onnx"), Path(temporary, "prepared.onnx")
        build_fp32(function, inputs, floating)
        quant_pre_process(floating, prepared)
        quantize_static(prepared, path, _Inputs(function.inputs, inputs))


def build_unaided_int8(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write the frozen torch module with the exporter's own int8 QuantizeLinear and DequantizeLinear."""
    _export(FloatQDQModule(QDQModule(function)), function, inputs, path)


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, names: tuple[str, ...], inputs: tuple[Floats, ...]) -> None:
        self._feeds = ({n: x[None] for n, x in zip(names, one, strict=True)} for one in zip(*inputs, strict=True))

    def get_next(self) -> dict[str, Floats] | None:
        """The next image of each input, by name; None after the last."""
        return next(self._feeds, None)


def _export(module: nn.Module, function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    program = torch.onnx.export(
        module.eval(),
        tuple(torch.from_numpy(x[:1]) for x in inputs),
        input_names=list(function.inputs),
        output_names=list(function.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
