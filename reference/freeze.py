"""Freezing: from a calibrated or fine-tuned network to the integer function, with its proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from litehrnet_stage2.reference import leaves, runtime_rules
from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.contract.manifest import Proof
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization, QuantizedTensor
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.operators.conv import LARGEST_ACCUMULATOR
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import ActivationQuantizer
from litehrnet_stage2.reference.settle import FloatConv, FreezeError, settle

__all__ = ["FreezeError", "Proof", "freeze"]


@torch.no_grad()
def freeze(model: QATStage2 | QuantizedNetwork, *shapes: Sequence[int]) -> tuple[IntegerFunction, Proof]:
    """The integer function of a calibrated or fine-tuned network, and what was proved of it.

    Args:
        model: the network; it is left as it is.
        shapes: of each input, `(1, C, H, W)` or of a whole batch; by default those it was calibrated on.

    Raises:
        FreezeError: ranges were never set, a value is not finite, a sum could leave int32, the size of an input is
            not known, or no nudge makes the runtimes agree.
    """
    drawing = _Drawing()
    if isinstance(model, QuantizedNetwork):
        outputs = dict(model.output_tensors)
        for name in model.input_names:
            drawing.write(name, model.quantizer(name))
        for step in model.run_order:
            drawing.draw(step.name, model.get_submodule(step.name), step.reads)
        pinned = model.pixels
    else:
        outputs, pinned = _draw_stage2(drawing, model), frozenset[str]()
    shapes = shapes or model.calibrated_shapes
    if len(shapes) != len(model.input_names):
        raise FreezeError(
            f"the shape of {', '.join(f'`{name}`' for name in model.input_names)} is not known: "
            "calibrate the network, or give it as in `freeze(model, (1, 32, 64, 128))`"
        )
    settled = settle(drawing.drafts, drawing.quantization, pinned)
    inputs = {name: (1, *shape[1:]) for name, shape in zip(model.input_names, shapes, strict=True)}
    function = assemble(model.function_name, inputs, outputs, settled.nodes, settled.quantization)
    return function, _prove(function, dict(settled.nudges), dict(settled.raised))


def _draw_stage2(drawing: _Drawing, model: QATStage2) -> dict[str, str]:
    """Draw the nodes of a Stage2, whose steps `torch.fx` finds in its `forward`; the tensor of each output."""
    graph = _LeafTracer().trace(model)
    # What gives nothing, as the check of the features' shape.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    tensors: dict[torch.fx.Node, str] = {}
    placeholders = iter(model.input_names)
    reads: list[str] = []
    for node in graph.nodes:
        reads = [tensors[argument] for argument in node.all_input_nodes]
        if node.op == "placeholder":
            tensors[node] = next(placeholders)
        elif node.op == "call_module":
            leaf = model.get_submodule(str(node.target))
            match leaf:
                case ActivationQuantizer():
                    drawing.write(reads[0], leaf)
                    tensors[node] = reads[0]
                case nn.Identity():
                    tensors[node] = reads[0]
                case _:
                    drawing.draw(str(node.target), leaf, reads)
                    tensors[node] = str(node.target)
    return dict(zip(model.output_names, reads, strict=True))  # what the output node reads, which is the last


def assemble(
    name: str,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, str],
    nodes: Sequence[op.Operator],
    quantization: Any,
) -> IntegerFunction:
    """An integer function of nodes, the shapes of all tensors worked out from those of the inputs."""
    shapes = dict(inputs)
    for node in nodes:
        shapes[node.name] = node.shape(*(shapes[read] for read in node.inputs))
    tensors = {
        tensor: QuantizedTensor(shape=shape, quantization=quantization[tensor]) for tensor, shape in shapes.items()
    }
    return IntegerFunction(name=name, inputs=tuple(inputs), outputs=outputs, tensors=tensors, nodes=tuple(nodes))


def _prove(function: IntegerFunction, nudges: dict[str, float], raised: dict[str, float]) -> Proof:
    """What holds of the nodes, and the one thing that is left to check: that no sum leaves int32.

    Raises:
        FreezeError: one can.
    """
    largest = 0
    for node in function.nodes:
        if isinstance(node, op.Conv):
            reach = node.reach(function.quantization[node.input].zero_point)
            if reach >= LARGEST_ACCUMULATOR:
                raise FreezeError(f"a sum in `{node.name}` can reach {reach}, past int32: use fewer channels")
            largest = max(largest, reach)
    unit = Quantization(np.float32(1), 0)
    return Proof(
        nodes=dict(Counter(type(node).__name__ for node in function.nodes)),
        rules=tuple(rule for rule, _ in runtime_rules.additions(unit, unit, unit)),
        nudges=nudges,
        raised=raised,
        largest_accumulator=largest,
    )


class _LeafTracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (leaves.Leaf, ActivationQuantizer, nn.Identity))


@dataclass
class _Drawing:
    """The nodes so far, and their scales as calibrated."""

    quantization: dict[str, Quantization] = field(default_factory=dict)
    drafts: list[op.Operator | FloatConv] = field(default_factory=list)

    def draw(self, name: str, leaf: nn.Module, reads: Sequence[str]) -> None:
        """Append the node of one leaf module, which writes the tensor `name`."""
        assert isinstance(leaf, leaves.Leaf), f"{type(leaf).__name__} at `{name}` is no leaf"
        self.write(name, leaf.output)
        inputs = tuple(reads)
        match leaf:
            case leaves.QuantConv():
                node: op.Operator | FloatConv = self._conv(name, leaf, inputs)
            case leaves.QuantSiLU():
                node = op.SiLU(name=name, inputs=inputs)
            case leaves.QuantAdd():
                node = op.Add(name=name, inputs=inputs)
            case leaves.QuantMul():
                node = op.Mul(name=name, inputs=inputs)
            case leaves.QuantTable():
                node = op.Table(name=name, inputs=inputs, function=leaf.function)
            case leaves.QuantResize():
                node = op.Resize(name=name, inputs=inputs, factor=leaf.factor)
            case leaves.QuantNearest():
                node = op.Nearest(name=name, inputs=inputs, factor=leaf.factor)
            case leaves.QuantMaxPool():
                node = op.MaxPool(
                    name=name, inputs=inputs, kernel=leaf.kernel, stride=leaf.stride, padding=leaf.padding
                )
            case leaves.QuantConcat():
                node = op.Concat(name=name, inputs=inputs)
            case leaves.QuantMean():
                node = op.Mean(name=name, inputs=inputs, cells=leaf.cells)
            case _:
                raise TypeError(f"no integer rule for {type(leaf).__name__} at `{name}`")
        self.drafts.append(node)

    def write(self, name: str, quantizer: ActivationQuantizer) -> None:
        """Give a tensor the quantiser's scale and zero point."""
        if not quantizer.calibrated:
            raise FreezeError(f"the range of `{name}` was never set: calibrate the network before freezing it")
        scale = np.float32(quantizer.scale.item())
        if not np.isfinite(scale) or scale <= 0:
            raise FreezeError(f"the scale of `{name}` (={scale}) must be finite and positive")
        self.quantization[name] = Quantization(scale, int(quantizer.zero_point))

    def _conv(self, name: str, leaf: leaves.QuantConv, inputs: tuple[str, ...]) -> FloatConv:
        weight, bias = leaf.weight.numpy().astype(np.float64), leaf.bias.numpy().astype(np.float64)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FreezeError(f"`{name}` has a weight or bias that is not finite: the checkpoint is damaged")
        conv = op.Conv(
            name=name,
            inputs=inputs,
            weight=np.zeros(weight.shape, np.int8),
            weight_scale=np.ones(len(weight), np.float32),
            bias=np.zeros(len(weight), np.int32),
            stride=leaf.stride,
            padding=leaf.padding,
            dilation=leaf.dilation,
            groups=leaf.groups,
        )
        scale = leaf.weight_quantizer.scale(leaf.weight).numpy()
        return FloatConv(conv=conv, weight=weight, weight_scale=scale, bias=bias)
