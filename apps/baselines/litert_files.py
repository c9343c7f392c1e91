"""The baseline in LiteRT: static int8 by its own quantizer, int8 NHWC in and out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe
from torch import Tensor, nn

from litehrnet_stage2.reference.float_module import FloatModule
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime.program import Floats

SIGNATURE = "serving_default"


class _ChannelsLast(nn.Module):
    """A network `[1,H,W,C]` in and out, as LiteRT's own tensors are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run channels first in between; the converter removes the transposes."""
        outputs = self.network(*(x.permute(0, 3, 1, 2) for x in inputs))
        return tuple(y.permute(0, 2, 3, 1) for y in outputs)


def build_int8(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write what ai-edge-quantizer's static recipe (int8 weights and activations) gives."""
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)) for x in inputs]
    network = _ChannelsLast(FloatModule(function)).eval()
    with tempfile.TemporaryDirectory() as temporary:
        floating = Path(temporary, "fp32.tflite")
        litert_torch.convert(network, tuple(torch.from_numpy(x[:1]) for x in last)).export(str(floating))
        quantizing = quantizer.Quantizer(str(floating))
        quantizing.load_quantization_recipe(recipe.static_wi8_ai8())
        samples = [{f"args_{i}": x[n : n + 1] for i, x in enumerate(last)} for n in range(len(last[0]))]
        ranges = quantizing.calibrate({SIGNATURE: samples})
        content = cast(bytearray, quantizing.quantize(ranges).quantized_model)
    path.write_bytes(bytes(content))
