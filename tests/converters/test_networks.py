"""Networks of other shapes than Stage2: each becomes one integer function, the same codes in every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import small_networks as small
import torch
from torch import nn

from litehrnet_stage2.converters import to_coreml, to_executorch_codes, to_litert_codes, to_onnx_codes
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.program import open_program

CONVERTERS = {
    "executorch-codes": to_executorch_codes.convert,
    "litert-codes": to_litert_codes.convert,
    "onnx-codes": to_onnx_codes.convert,
}


def floats(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of a float network, in order."""
    with torch.no_grad():
        return list(small.outputs(network, images.float() / 255).values())


@pytest.fixture(scope="module", params=[f"{name}, {weights}" for name in small.NETWORKS for weights in small.WEIGHTS])
def converted(request: pytest.FixtureRequest) -> tuple[nn.Module, IntegerFunction]:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    name, weights = request.param.split(", ")
    network = small.WEIGHTS[weights](small.NETWORKS[name](), images.float() / 255)
    quantized = quantize(network, images)
    before = [quantized(images)[name] for name in quantized.output_names]
    for found, due in zip(before, floats(network, images), strict=True):
        torch.testing.assert_close(found.reshape(due.shape), due, rtol=1e-4, atol=1e-5)
    return network, freeze(quantized.calibrate(images))[0]


@pytest.mark.parametrize("target", CONVERTERS)
def test_every_runtime_gives_the_golden_codes(
    converted: tuple[nn.Module, IntegerFunction], target: str, tmp_path: Path
) -> None:
    _, function = converted
    artifact = ARTIFACTS[target]
    path = tmp_path / artifact.file(function.name)
    CONVERTERS[target](function, path, Deployment())
    program = open_program(artifact.library, path.read_bytes(), threads=1, exact=True)
    bordered = BorderProgram(program, *border_specs(function), artifact.border)
    codes = np.random.default_rng(0).integers(-128, 128, (1, 3, 32, 32)).astype(np.int8)
    found = bordered.to_codes(bordered.run(bordered.from_codes(codes)))
    for y, due in zip(found, golden.evaluate(function, codes).values(), strict=True):
        np.testing.assert_array_equal(y, due)


def test_core_ml_gives_the_golden_codes(converted: tuple[nn.Module, IntegerFunction], tmp_path: Path) -> None:
    _, function = converted
    to_coreml.convert(function, tmp_path / "network.mlpackage", Deployment())
    codes = np.random.default_rng(0).integers(-128, 128, (1, 3, 32, 32)).astype(np.int8)
    x = function.input_quantization.dequantize(codes)
    found = evaluate(MilProgram.load(tmp_path / "network.mlpackage"), {"image": x})
    for name, due in golden.evaluate(function, codes).items():
        np.testing.assert_array_equal(function.output_quantization[name].quantize(found[name]), due)


def test_the_codes_stand_for_the_float_networks_outputs(converted: tuple[nn.Module, IntegerFunction]) -> None:
    """On the images that set the ranges, quantisation noise stays 15 dB below the signal."""
    network, function = converted
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    codes = golden.evaluate(function, (images.numpy() ^ np.uint8(128)).view(np.int8))
    for (name, q), due in zip(function.output_quantization.items(), floats(network, images), strict=True):
        signal = due.numpy().reshape(codes[name].shape)
        noise = q.dequantize(codes[name]) - signal
        assert 10 * np.log10(np.square(signal).sum() / np.square(noise).sum()) > 15
