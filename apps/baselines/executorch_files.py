"""Baselines in ExecuTorch: fp32, and int8 by the stock XNNPACK quantizer."""

from __future__ import annotations

from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from litehrnet_stage2.reference.float_module import FloatModule
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime.program import Floats


def build_fp32(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write the float network as XNNPACK's own partitioner takes it."""
    example = tuple(torch.from_numpy(x[:1]) for x in inputs)
    _write(torch.export.export(FloatModule(function).eval(), example), path)


def build_stock_int8(function: IntegerFunction, inputs: tuple[Floats, ...], path: Path) -> None:
    """Write what post-training quantisation with `XNNPACKQuantizer` gives."""
    example = tuple(torch.from_numpy(x[:1]) for x in inputs)
    module = torch.export.export(FloatModule(function).eval(), example).module()
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(module, quantizer)
    for images in zip(*inputs, strict=True):
        prepared(*(torch.from_numpy(image[None]) for image in images))
    _write(torch.export.export(convert_pt2e(prepared), example), path)


def _write(exported: torch.export.ExportedProgram, path: Path) -> None:
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
