"""Freezing: from a calibrated or fine-tuned network to the integer function, with its proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization, Tensor
from litehrnet_stage2.reference.operators import Add, Conv, Operator, Resize, SiLU
from litehrnet_stage2.reference.operators.conv import LARGEST_ACCUMULATOR
from litehrnet_stage2.reference.qat import QATStage2, QuantAdd, QuantConv, QuantProjectUp, QuantSiLU
from litehrnet_stage2.reference.quantizers import ActivationQuantizer
from litehrnet_stage2.reference.settle import FloatConv, FreezeError, settle

__all__ = ["FreezeError", "Proof", "freeze"]


@dataclass(frozen=True)
class Proof:
    """What was checked when freezing.

    Attributes:
        nodes: how many nodes of each kind there are, and of how many something had to be proved: by kind.
        rules: the rules of addition compared, on all 65,536 code pairs.
        nudges: relative change of each scale that had to move, by tensor name.
        raised: factor of each scale that was raised to what every runtime's kernels take, by tensor name.
        largest_accumulator: the largest magnitude any convolution's sum can reach, in codes.
    """

    nodes: dict[str, int]
    rules: tuple[str, ...]
    nudges: dict[str, float]
    raised: dict[str, float]
    largest_accumulator: int


@torch.no_grad()
def freeze(model: QATStage2, *shapes: Sequence[int]) -> tuple[IntegerFunction, Proof]:
    """The integer function of a calibrated or fine-tuned network, and what was proved of it.

    Args:
        model: the network; it is left as it is.
        shapes: of each input, `(1, C, H, W)` or of a whole batch; by default those it was calibrated on.

    Raises:
        FreezeError: ranges were never set, a value is not finite, a sum could leave int32, the size of an input is
            not known, or no nudge makes the runtimes agree.
    """
    drawing = _Drawing()
    outputs: tuple[str, ...] = ()
    placeholders = iter(model.input_names)
    graph = _LeafTracer().trace(model)
    # What gives nothing, as the check of the features' shape.
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    for node in graph.nodes:
        reads = [drawing.tensors[argument] for argument in node.all_input_nodes if argument in drawing.tensors]
        match node.op:
            case "placeholder":
                drawing.tensors[node] = next(placeholders)
            case "output":
                outputs = tuple(reads)
            case "call_module":
                drawing.tensors[node] = drawing.draw(str(node.target), model.get_submodule(str(node.target)), reads)
            case _:
                raise FreezeError(f"no integer rule for `{node.target}` ({node.op}) in `forward`")
    shapes = shapes or model.calibrated_shapes
    if len(shapes) != len(model.input_names):
        raise FreezeError(
            f"the shape of {', '.join(f'`{name}`' for name in model.input_names)} is not known: "
            "calibrate the network, or give it as in `freeze(model, (1, 32, 64, 128))`"
        )
    settled = settle(drawing.drafts, drawing.quantization)
    named = dict(zip(model.output_names, outputs, strict=True))
    inputs = {name: (1, *shape[1:]) for name, shape in zip(model.input_names, shapes, strict=True)}
    function = assemble(model.function_name, inputs, named, settled.nodes, settled.quantization)
    return function, _prove(function, dict(settled.nudges), dict(settled.raised))


def assemble(
    name: str,
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, str],
    nodes: Sequence[Operator],
    quantization: Any,
) -> IntegerFunction:
    """An integer function of nodes, the shapes of all tensors worked out from those of the inputs."""
    shapes = dict(inputs)
    for node in nodes:
        shapes[node.name] = node.shape(*(shapes[read] for read in node.inputs))
    tensors = {tensor: Tensor(shape=shape, quantization=quantization[tensor]) for tensor, shape in shapes.items()}
    return IntegerFunction(name=name, inputs=tuple(inputs), outputs=outputs, tensors=tensors, nodes=tuple(nodes))


def _prove(function: IntegerFunction, nudges: dict[str, float], raised: dict[str, float]) -> Proof:
    """What holds of the nodes, and the one thing that is left to check: that no sum leaves int32.

    Raises:
        FreezeError: one can.
    """
    largest = 0
    for node in function.nodes:
        if isinstance(node, Conv):
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
        leaves = (QuantConv, QuantSiLU, QuantAdd, QuantProjectUp, ActivationQuantizer, nn.Identity)
        return isinstance(m, leaves)


@dataclass
class _Drawing:
    """The nodes so far, their scales as calibrated, and the tensor that each step of the trace stands for."""

    quantization: dict[str, Quantization] = field(default_factory=dict)
    drafts: list[Operator | FloatConv] = field(default_factory=list)
    tensors: dict[torch.fx.Node, str] = field(default_factory=dict)

    def draw(self, name: str, leaf: nn.Module, reads: list[str]) -> str:
        """Append the nodes of one leaf module; returns the tensor that holds its result."""
        match leaf:
            case ActivationQuantizer():
                self.write(reads[0], leaf)
                return reads[0]
            case nn.Identity():
                return reads[0]
            case QuantConv():
                self._conv(name, leaf, reads[0])
            case QuantSiLU():
                self.write(name, leaf.output)
                self.drafts.append(SiLU(name=name, inputs=(reads[0],)))
            case QuantAdd():
                self.write(name, leaf.output)
                self.drafts.append(Add(name=name, inputs=(reads[0], reads[1])))
            case QuantProjectUp():
                self._conv(f"{name}.project", leaf.project, reads[0])
                self.quantization[f"{name}.resize"] = self.quantization[f"{name}.project"]
                self.drafts.append(Resize(name=f"{name}.resize", inputs=(f"{name}.project",)))
                return f"{name}.resize"
            case _:
                raise TypeError(f"no integer rule for {type(leaf).__name__} at `{name}`")
        return name

    def write(self, name: str, quantizer: ActivationQuantizer) -> None:
        """Give a tensor the quantiser's scale and zero point."""
        if not quantizer.calibrated:
            raise FreezeError(f"the range of `{name}` was never set: calibrate the network before freezing it")
        scale = np.float32(quantizer.scale.item())
        if not np.isfinite(scale) or scale <= 0:
            raise FreezeError(f"the scale of `{name}` (={scale}) must be finite and positive")
        self.quantization[name] = Quantization(scale, int(quantizer.zero_point))

    def _conv(self, name: str, leaf: QuantConv, read: str) -> None:
        self.write(name, leaf.output)
        weight, bias = leaf.weight.numpy().astype(np.float64), leaf.bias.numpy().astype(np.float64)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise FreezeError(f"`{name}` has a weight or bias that is not finite: the checkpoint is damaged")
        conv = Conv(
            name=name,
            inputs=(read,),
            weight=np.zeros(weight.shape, np.int8),
            weight_scale=np.ones(len(weight), np.float32),
            bias=np.zeros(len(weight), np.int32),
            stride=(leaf.stride, leaf.stride),
            padding=(leaf.padding,) * 4,
            groups=leaf.groups,
        )
        scale = leaf.weight_quantizer.scale(leaf.weight).numpy()
        self.drafts.append(FloatConv(conv=conv, weight=weight, weight_scale=scale, bias=bias))
