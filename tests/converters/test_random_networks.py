"""Random networks: each becomes one integer function near its float network, the same codes in every runtime."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import RandomNetwork

from litehrnet_stage2.converters import (
    to_coreml,
    to_executorch,
    to_executorch_codes,
    to_litert,
    to_litert_codes,
    to_onnx,
    to_onnx_codes,
)
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.program import open_program

CONVERTERS = {
    "executorch": to_executorch.convert,
    "executorch-codes": to_executorch_codes.convert,
    "litert": to_litert.convert,
    "litert-codes": to_litert_codes.convert,
    "onnx": to_onnx.convert,
    "onnx-codes": to_onnx_codes.convert,
}
COUNT = int(os.environ.get("LITEHRNET_STAGE2_RANDOM_NETWORKS", "8"))
"""To hunt, set it to some hundred: each takes seconds."""


@pytest.mark.parametrize("seed", range(COUNT))
def test_every_runtime_gives_the_golden_codes(seed: int, tmp_path: Path) -> None:
    network = RandomNetwork(seed)
    pixels = seed % 2 == 0
    examples = network.examples(4, pixels=pixels)
    quantized = quantize(network, examples).calibrate(examples)
    function, _ = freeze(quantized)

    floats = examples.float() / 255 if pixels else examples
    codes = golden.evaluate(function, function.input_quantization.quantize(floats.numpy()))
    with torch.no_grad():
        for name, due in quantized(examples).items():
            noise = function.output_quantization[name].dequantize(codes[name]) - due.reshape(codes[name].shape).numpy()
            assert float(due.square().sum()) >= 100 * np.square(noise).sum(), "golden computes what was calibrated"

    inputs = np.random.default_rng(seed).integers(-128, 128, (2, *network.shape)).astype(np.int8)
    wanted = golden.evaluate(function, inputs)
    for target, convert in CONVERTERS.items():
        artifact = ARTIFACTS[target]
        path = tmp_path / artifact.file(function.name)
        convert(function, path, Deployment())
        content = path.read_bytes()  # alive as long as its program
        program = BorderProgram(
            open_program(artifact.library, content, threads=1, exact=True), *border_specs(function), artifact.border
        )
        for i in range(len(inputs)):
            found = program.to_codes(program.run(program.from_codes(inputs[i : i + 1])))
            for y, (name, due) in zip(found, wanted.items(), strict=True):
                assert int((y != due[i : i + 1]).sum()) == 0, f"{target}, {name}"
    to_coreml.convert(function, tmp_path / "network.mlpackage", Deployment())
    found = evaluate(
        MilProgram.load(tmp_path / "network.mlpackage"), {"x": function.input_quantization.dequantize(inputs[:1])}
    )
    for name, q in function.output_quantization.items():
        assert int((q.quantize(found[name]) != wanted[name][:1]).sum()) == 0, f"coreml, {name}"
