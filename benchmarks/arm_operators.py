"""Instructions that XNNPACK takes for each operator alone: `python benchmarks/arm_operators.py BUNDLE [--cpu NAME]`.

One node of each kind and shape in a bundle's integer function becomes a `.pte` of its own, codes in and out, channels
last, and is counted on an emulated Arm CPU; what a call of the smallest program takes is subtracted. With XNNPACK's
kernels no arrangement of the same operators goes below the sum. The conversions of an artifact with float32 in and out
are counted too.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from litehrnet_stage2.apps import console
from litehrnet_stage2.converters import xnnpack_lowering
from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.operators import Conv, Operator, SiLU
from litehrnet_stage2.reference.qdq_module import QDQModule, dequantize, quantize
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice
from litehrnet_stage2.runtime.devices.toolchain import EXECUTORCH_VERSION

RESULT = Path(__file__).with_name("arm_operators.json")
SMALLEST = (1, 16, 1, 2)
LANES = 16
"""Multiply-adds of one SDOT."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the nodes, or conversions, of one kind and shape cost.

    Attributes:
        count: of such nodes.
        instructions: of one of them.
        multiply_adds: of one of them.
    """

    operator: str
    count: int
    instructions: int
    multiply_adds: int


def main() -> None:
    """Count, print the table, and write `arm_operators.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cpu", choices=sorted(CPU_MODELS), default="cortex-a76")
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    function = bundle.function()
    groups: dict[str, list[Operator]] = {}
    for node in function.nodes:
        groups.setdefault(describe(function, node), []).append(node)
    with EmulatedDevice(CPU_MODELS[options.cpu]) as device:
        silu = next(node for node in function.nodes if isinstance(node, SiLU))
        call = count(alone(function, silu, SMALLEST), codes(SMALLEST), device)
        costs = [
            Cost(
                operator=operator,
                count=len(nodes),
                instructions=count(alone(function, nodes[0]), codes(function.tensors[nodes[0].input].shape), device)
                - call,
                multiply_adds=multiply_adds(function, nodes[0]),
            )
            for operator, nodes in groups.items()
        ]
        conversions = conversion_costs(function, silu, device)
    costs.sort(key=lambda cost: -cost.count * cost.instructions)
    report = {
        "command": f"python benchmarks/arm_operators.py bundle --cpu {options.cpu}",
        "cpu": options.cpu,
        "executorch": EXECUTORCH_VERSION,
        "golden_sha256": bundle.manifest.golden_sha256,
        "call": call,
        "operators": [dataclasses.asdict(cost) for cost in costs],
        "total": sum(cost.count * cost.instructions for cost in costs),
        "conversions": [dataclasses.asdict(cost) for cost in conversions],
    }
    console.write_json(report, options.json)
    console.out.print(table("Instructions per inference", costs))
    console.out.print(table("Where float32 goes in and out", conversions))


def multiply_adds(function: IntegerFunction, node: Operator) -> int:
    """Of one inference."""
    if not isinstance(node, Conv):
        return 0
    _, _, height, width = function.tensors[node.name].shape
    return node.weight.size * height * width


def describe(function: IntegerFunction, node: Operator) -> str:
    """Kind and shape: nodes of one description cost the same."""
    _, channels, height, width = function.tensors[node.input].shape
    kind = f"{type(node).__name__.lower()}, {channels}"
    if isinstance(node, Conv):
        size, stride = node.weight.shape[2], node.stride[0]
        kind = "depthwise" if node.groups > 1 else "convolution"
        kind = f"{kind} {size}x{size}{'/2' if stride == 2 else ''}, {channels}->{len(node.weight)}"
    return f"{kind} at {height}x{width}"


def alone(function: IntegerFunction, node: Operator, shape: tuple[int, ...] | None = None) -> QDQModule:
    """One node as a module of codes, which reads its one input as often as the node has inputs."""
    shape = shape or function.tensors[node.input].shape
    q = {"x": function.quantization[node.input], node.name: function.quantization[node.name]}
    node = dataclasses.replace(node, inputs=("x",) * len(node.inputs))
    return QDQModule(assemble("alone", {"x": shape}, {"y": node.name}, [node], q))


class Quantized(nn.Module):
    """A module of codes behind float32."""

    def __init__(self, inner: nn.Module, quantization: Quantization) -> None:
        super().__init__()
        self.inner, self.quantization = inner, quantization

    def forward(self, x: Tensor) -> Tensor:
        """Float32 in, codes out."""
        y: Tensor = self.inner(quantize(x, self.quantization))[0]
        return y


class Dequantized(nn.Module):
    """A module of codes before float32."""

    def __init__(self, inner: nn.Module, quantization: Quantization) -> None:
        super().__init__()
        self.inner, self.quantization = inner, quantization

    def forward(self, codes: Tensor) -> Tensor:
        """Codes in, float32 out."""
        return dequantize(self.inner(codes)[0], self.quantization)


def conversion_costs(function: IntegerFunction, node: Operator, device: EmulatedDevice) -> list[Cost]:
    """Every input quantised and every output dequantised: what that adds to a program of one node."""
    costs = []
    q = function.input_quantization
    for tensor in (*function.inputs, *function.outputs.values()):
        shape = function.tensors[tensor].shape
        inner, example = alone(function, node, shape), torch.zeros(shape, dtype=torch.int8)
        if tensor in function.inputs:
            kind, instructions = "quantise", count(Quantized(inner, q), example.float(), device)
        else:
            kind, instructions = "dequantise", count(Dequantized(inner, q), example, device)
        channels, height, width = shape[1:]
        costs.append(
            Cost(
                operator=f"{kind}, {channels} at {height}x{width}",
                count=1,
                instructions=instructions - count(inner, example, device),
                multiply_adds=0,
            )
        )
    return costs


def codes(shape: tuple[int, ...]) -> Tensor:
    """An example, channels last."""
    return torch.zeros(shape, dtype=torch.int8).to(memory_format=torch.channels_last)


def count(module: nn.Module, example: Tensor, device: EmulatedDevice) -> int:
    """Instructions of one call of the program that this module becomes."""
    program = xnnpack_lowering.lower(module, example)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "operator.pte")
        path.write_bytes(xnnpack_lowering.serialize(program, example))
        return round(device.count_instructions("executorch", path, np.ascontiguousarray(example.numpy())).per_inference)


def table(title: str, costs: list[Cost]) -> Table:
    """The costs, the greatest first, and their sum; beside dense convolutions what SDOT alone would take."""
    result = Table("operator", "count", "M each", "M", "M of SDOT", title=title)
    for column in result.columns[1:]:
        column.justify = "right"
    for cost in costs:
        sdot = cost.count * cost.multiply_adds / LANES / 1e6
        result.add_row(
            cost.operator,
            str(cost.count),
            f"{cost.instructions / 1e6:.3f}",
            f"{cost.count * cost.instructions / 1e6:.2f}",
            f"{sdot:.2f}" if cost.operator.startswith("convolution") else "",
        )
    total = sum(cost.count * cost.instructions for cost in costs) / 1e6
    result.add_row("all", str(sum(cost.count for cost in costs)), "", f"{total:.2f}", "")
    return result


if __name__ == "__main__":
    main()
