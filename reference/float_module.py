"""The integer function as an ordinary float network: what a user would have handed to a stock exporter.

Same weights and biases, dequantised; no quantiser anywhere. A projection and the resize after it, which freezing
put in the cheaper order, come in the order in which networks are written: resize first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference import operators as op
from litehrnet_stage2.reference.functional import ACTIVATIONS, max_pool, upsample
from litehrnet_stage2.reference.integer_function import QMIN, IntegerFunction
from litehrnet_stage2.reference.lowering import Lowerings, check_lowered


class FloatModule(nn.Module):
    """The float inputs of a function in, its float outputs out, each of its tensor's shape."""

    def __init__(self, function: IntegerFunction) -> None:
        super().__init__()
        check_lowered(function, LOWER, "the float network")
        self.function = function
        self.convolutions = nn.ModuleDict()
        for node in function.nodes:
            if isinstance(node, op.Conv):
                self.convolutions[key(node)] = _convolution(function, node)
        self._order = tuple(_resize_first(function))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Evaluate node by node."""
        function = self.function
        tensors = dict(zip(function.inputs, values, strict=True))
        for node, reads, writes in self._order:
            y = LOWER[type(node)](self, node, *(tensors[name] for name in reads))
            if isinstance(node, (op.Conv, op.Add)) and function.quantization[node.name].zero_point == QMIN:
                y = F.relu(y)  # in codes the saturation does this
            tensors[writes] = y
        return tuple(tensors[tensor] for tensor in function.outputs.values())


def key(node: op.Conv) -> str:
    """What a convolution is called among the module's children."""
    return node.name.replace(".", "_")


def _convolution(function: IntegerFunction, node: op.Conv) -> nn.Module:
    """A float convolution with a node's weights; padding that differs between sides is a step of its own."""
    channels, per_group, height, width = node.weight.shape
    top, left, bottom, right = node.padding
    even = (top, left) == (bottom, right)
    conv = nn.Conv2d(
        per_group * node.groups,
        channels,
        (height, width),
        stride=node.stride,
        padding=(top, left) if even else 0,
        dilation=node.dilation,
        groups=node.groups,
    )
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(node.weight * node.weight_scale[:, None, None, None]))
        conv.bias.copy_(torch.from_numpy(node.bias.astype("float32") * function.bias_scale(node)))  # type: ignore[union-attr]
    return conv if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def _resize_first(function: IntegerFunction) -> list[tuple[op.Operator, tuple[str, ...], str]]:
    """The nodes, what each reads and writes, with every projection that only a resize reads put after that resize."""
    steps = []
    moved = {}
    for node in function.nodes:
        readers = function.consumers(node.name)
        if isinstance(node, op.Conv) and node.weight.shape[2:] == (1, 1) and [type(r) for r in readers] == [op.Resize]:
            moved[node.name] = node
        elif node.input in moved:
            projection = moved[node.input]
            steps.append((node, projection.inputs, f"{node.name}/resized"))
            steps.append((projection, (f"{node.name}/resized",), node.name))
        else:
            steps.append((node, node.inputs, node.name))
    return steps


LOWER: Lowerings[Callable[..., Tensor]] = {
    op.Conv: lambda module, node, x: module.convolutions[key(node)](x),
    op.SiLU: lambda module, node, x: F.silu(x),
    op.Add: lambda module, node, a, b: a + b,
    op.Resize: lambda module, node, x: upsample(x, node.factor),
    op.Table: lambda module, node, x: ACTIVATIONS[node.function](x),
    op.Mul: lambda module, node, a, b: a * b,
    op.Concat: lambda module, node, *inputs: torch.cat(inputs, dim=1),
    op.Nearest: lambda module, node, x: F.interpolate(x, scale_factor=node.factor, mode="nearest"),
    op.MaxPool: lambda module, node, x: max_pool(x, node),
    op.Mean: lambda module, node, x: x.mean(dim=(2, 3), keepdim=True),
}
"""By kind of node: its result, of the floats it reads."""
