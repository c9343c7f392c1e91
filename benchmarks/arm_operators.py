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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from litehrnet_stage2.apps import console
from litehrnet_stage2.converters import xnnpack_lowering
from litehrnet_stage2.reference.frozen import FrozenStage2, dequantize, quantize
from litehrnet_stage2.reference.integer_function import (
    INPUT,
    Add,
    Conv,
    IntegerFunction,
    Node,
    Quantization,
    Resize,
    SiLU,
    inputs_of,
)
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.devices import CPU_MODELS, EmulatedDevice
from litehrnet_stage2.runtime.devices.toolchain import EXECUTORCH_VERSION

RESULT = Path(__file__).with_name("arm_operators.json")
SMALLEST = (16, 1, 2)
LANES = 16
"""Multiply-adds of one SDOT."""

Shape = tuple[int, int, int]


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
    function, features = bundle.function(), bundle.manifest.input.shape[1:]
    groups: dict[str, list[tuple[Node, Shape, int]]] = {}
    for node, shape, macs in shaped_nodes(function, features):
        groups.setdefault(describe(node, shape), []).append((node, shape, macs))
    with EmulatedDevice(CPU_MODELS[options.cpu]) as device:
        silu = next(node for node in function.nodes if isinstance(node, SiLU))
        call = count(Alone(function, silu), codes(SMALLEST), device)
        costs = [
            Cost(
                operator=operator,
                count=len(nodes),
                instructions=count(Alone(function, nodes[0][0]), codes(nodes[0][1]), device) - call,
                multiply_adds=nodes[0][2],
            )
            for operator, nodes in groups.items()
        ]
        conversions = conversion_costs(Alone(function, silu), function.input_quantization, bundle, device)
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


def shaped_nodes(function: IntegerFunction, features: Shape) -> Iterator[tuple[Node, Shape, int]]:
    """Each node, the `[C, H, W]` it reads, and its multiply-adds."""
    shapes = {INPUT: features}
    for node in function.nodes:
        channels, height, width = shape = shapes[inputs_of(node)[0]]
        macs = 0
        match node:
            case Conv():
                channels, height, width = len(node.weight), height // node.stride, width // node.stride
                macs = node.weight.size * height * width
            case Resize():
                height, width = 2 * height, 2 * width
        shapes[node.name] = (channels, height, width)
        yield node, shape, macs


def describe(node: Node, shape: Shape) -> str:
    """Kind and shape: nodes of one description cost the same."""
    channels, height, width = shape
    match node:
        case Conv():
            kind, size = "depthwise" if node.groups > 1 else "convolution", node.weight.shape[2]
            kind = f"{kind} {size}x{size}{'/2' if node.stride == 2 else ''}, {channels}->{len(node.weight)}"
        case SiLU():
            kind = f"SiLU, {channels}"
        case Add():
            kind = f"addition, {channels}"
        case Resize():
            kind = f"resize, {channels}"
    return f"{kind} at {height}x{width}"


class Alone(nn.Module):
    """One node, which reads the input as often as it has inputs."""

    def __init__(self, function: IntegerFunction, node: Node) -> None:
        super().__init__()
        quantization = {INPUT: function.quantization[inputs_of(node)[0]], node.name: function.quantization[node.name]}
        reads = {"inputs": (INPUT, INPUT)} if isinstance(node, Add) else {"input": INPUT}
        alone = dataclasses.replace(
            function,
            quantization=quantization,
            nodes=(dataclasses.replace(node, **reads),),
            outputs=(node.name, node.name),
        )
        self.codes = FrozenStage2(alone)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes in, codes out."""
        y: Tensor = self.codes(codes)[0]
        return y


class Quantized(nn.Module):
    """A module of codes behind float32."""

    def __init__(self, inner: nn.Module, quantization: Quantization) -> None:
        super().__init__()
        self.inner, self.quantization = inner, quantization

    def forward(self, x: Tensor) -> Tensor:
        """Float32 in, codes out."""
        y: Tensor = self.inner(quantize(x, self.quantization))
        return y


class Dequantized(nn.Module):
    """A module of codes before float32."""

    def __init__(self, inner: nn.Module, quantization: Quantization) -> None:
        super().__init__()
        self.inner, self.quantization = inner, quantization

    def forward(self, codes: Tensor) -> Tensor:
        """Codes in, float32 out."""
        return dequantize(self.inner(codes), self.quantization)


def conversion_costs(inner: Alone, q: Quantization, bundle: Bundle, device: EmulatedDevice) -> list[Cost]:
    """The features quantised and both outputs dequantised: what that adds to a program of one node."""
    costs = []
    for spec in (bundle.manifest.input, *bundle.manifest.outputs):
        example = torch.zeros(spec.shape, dtype=torch.int8)
        if spec is bundle.manifest.input:
            kind, instructions = "quantise", count(Quantized(inner, q), example.float(), device)
        else:
            kind, instructions = "dequantise", count(Dequantized(inner, q), example, device)
        channels, height, width = spec.shape[1:]
        costs.append(
            Cost(
                operator=f"{kind}, {channels} at {height}x{width}",
                count=1,
                instructions=instructions - count(inner, example, device),
                multiply_adds=0,
            )
        )
    return costs


def codes(shape: Shape) -> Tensor:
    """An example, channels last."""
    return torch.zeros(1, *shape, dtype=torch.int8).to(memory_format=torch.channels_last)


def count(module: nn.Module, example: Tensor, device: EmulatedDevice) -> int:
    """Instructions of one call of the program that this module becomes."""
    program = xnnpack_lowering.lower(module, example)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "operator.pte")
        path.write_bytes(xnnpack_lowering.serialize(program, example.shape[1]))
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
