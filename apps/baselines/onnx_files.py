"""Baselines in ONNX: fp32, int8 by ONNX Runtime's static quantisation, and the frozen module exported unaided."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from litehrnet_stage2.reference.float_module import FloatModule
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.qdq_module import FloatQDQModule

OPSET = 18  # the exporter's own; what it calls default


def build_fp32(function: IntegerFunction, features: NDArray[np.float32], path: Path) -> None:
    """Write the float network."""
    _export(FloatModule(function), function, features, path)


def build_stock_int8(function: IntegerFunction, features: NDArray[np.float32], path: Path) -> None:
    """Write what `quantize_static` gives with its default settings, after the preparation its manual asks for."""
    with tempfile.TemporaryDirectory() as temporary:
        floating, prepared = Path(temporary, "fp32.onnx"), Path(temporary, "prepared.onnx")
        build_fp32(function, features, floating)
        quant_pre_process(floating, prepared)
        quantize_static(prepared, path, _Features(function.inputs[0], features))


def build_unaided_int8(function: IntegerFunction, features: NDArray[np.float32], path: Path) -> None:
    """Write the frozen torch module with the exporter's own int8 QuantizeLinear and DequantizeLinear."""
    _export(FloatQDQModule(function), function, features, path)


class _Features(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, features: NDArray[np.float32]) -> None:
        self._name = name
        self._images: Iterator[NDArray[np.float32]] = iter(features)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next image by the input's name, None after the last."""
        image = next(self._images, None)
        return None if image is None else {self._name: image[None]}


def _export(module: nn.Module, function: IntegerFunction, features: NDArray[np.float32], path: Path) -> None:
    program = torch.onnx.export(
        module.eval(),
        (torch.from_numpy(features[:1]),),
        input_names=list(function.inputs),
        output_names=list(function.outputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
