"""What is known of torch: each layer and function that has an int8 form, and how its kind and values are read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

from litehrnet_stage2.reference.float_network import Unreadable


class TracedTensors:
    """The tensors of a traced network.

    Attributes:
        values: what every node gave for the example inputs.
        names: of the nodes read so far that are tensors of the network.
    """

    def __init__(self, values: Mapping[Node, Any]) -> None:
        self.values = values
        self.names: dict[Node, str] = {}

    def constant(self, value: Any) -> Any:
        """A number, or the tensor of an attribute; a node of the network is none.

        Raises:
            Unreadable: it is computed.
        """
        if isinstance(value, Node):
            if value.op != "get_attr":
                raise Unreadable("an operand that must be constant is computed")
            return self.values[value]
        return value


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


# modules


def _pooling(layer: Any) -> dict[str, Any]:
    if layer.ceil_mode:
        raise Unreadable("`ceil_mode=True` is not known: pad the input instead")
    kernel = _pair(layer.kernel_size)
    return {"kernel": kernel, "stride": _pair(layer.stride or kernel), "padding": _pair(layer.padding)}


def _max_pool_module(layer: nn.MaxPool2d) -> tuple[str, dict[str, Any]]:
    if _pair(layer.dilation) != (1, 1) or layer.return_indices:
        raise Unreadable("a dilated MaxPool2d, or one that returns indices, is not known")
    return "max_pool", _pooling(layer)


def _avg_pool_module(layer: nn.AvgPool2d) -> tuple[str, dict[str, Any]]:
    values = _pooling(layer)
    if layer.divisor_override is not None or (any(values["padding"]) and not layer.count_include_pad):
        raise Unreadable("AvgPool2d must count the padding and have no other divisor: set `count_include_pad=True`")
    return "avg_pool", values


def _adaptive_module(layer: nn.AdaptiveAvgPool2d) -> tuple[str, dict[str, Any]]:
    if layer.output_size not in (1, (1, 1)):
        raise Unreadable(f"AdaptiveAvgPool2d to {layer.output_size} is not known: only to 1x1")
    return "mean", {}


def _upsample_module(layer: nn.Upsample) -> tuple[str, dict[str, Any]]:
    return _resize_kind(layer.mode, layer.align_corners), {}


def _conv_module(layer: nn.Conv2d) -> tuple[str, dict[str, Any]]:
    if layer.padding_mode != "zeros":
        raise Unreadable(f"`padding_mode={layer.padding_mode!r}` is not known: only zeros")
    return "conv", {"module": layer}


def _flatten_module(layer: nn.Flatten) -> tuple[str, dict[str, Any]]:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise Unreadable("Flatten must keep the batch and flatten all the rest")
    return "flatten", {}


def _activation(function: str) -> Callable[[nn.Module], tuple[str, dict[str, Any]]]:
    return lambda layer: ("activation", {"function": function})


def _dropped(layer: nn.Module) -> tuple[str, dict[str, Any]]:
    return "identity", {}


MODULES: dict[type[nn.Module], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    nn.Conv2d: _conv_module,
    nn.Linear: lambda layer: ("linear", {"module": layer}),
    nn.BatchNorm2d: lambda layer: ("bn", {"module": layer}),
    nn.SiLU: lambda layer: ("silu", {}),
    nn.ReLU: _activation("relu"),
    nn.ReLU6: _activation("relu6"),
    nn.Hardswish: _activation("hardswish"),
    nn.Hardsigmoid: _activation("hardsigmoid"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Tanh: _activation("tanh"),
    nn.Upsample: _upsample_module,
    nn.UpsamplingBilinear2d: lambda layer: (_resize_kind("bilinear", True), {}),
    nn.UpsamplingNearest2d: lambda layer: ("nearest", {}),
    nn.MaxPool2d: _max_pool_module,
    nn.AvgPool2d: _avg_pool_module,
    nn.AdaptiveAvgPool2d: _adaptive_module,
    nn.Flatten: _flatten_module,
    nn.ZeroPad2d: lambda layer: ("pad", {"padding": layer.padding}),
    nn.Dropout: _dropped,
    nn.Dropout2d: _dropped,
    nn.Identity: _dropped,
}
"""By class: reads a layer into its kind and values."""


# functions and methods

Read = tuple[str, tuple[Node, ...], dict[str, Any]]


def _bound(node: Node, *parameters: str, **defaults: Any) -> dict[str, Any]:
    """A node's arguments by name; those that are not among the parameters must be what they are by default.

    Raises:
        Unreadable: another argument, or one too many.
    """
    name = getattr(node.target, "__name__", str(node.target))
    if len(node.args) > len(parameters):
        raise Unreadable(f"{name} with {len(node.args)} arguments is not known: give the rest by name")
    for label, value in node.kwargs.items():
        if label not in parameters and value != NO_EFFECT.get(label, ...):
            raise Unreadable(f"{name} with {label}={value!r} is not known: leave it out")
    return defaults | dict(zip(parameters, node.args, strict=False)) | dict(node.kwargs)


NO_EFFECT = {
    "alpha": 1, "antialias": False, "ceil_mode": False, "count_include_pad": True, "dilation": 1,
    "divisor_override": None, "dtype": None, "inplace": False, "out": None, "recompute_scale_factor": None,
    "return_indices": False, "rounding_mode": None,
}  # fmt: skip
"""Arguments that change nothing where they have this value."""


def _operands(node: Node) -> tuple[Any, Any]:
    values = _bound(node, "input", "other")
    return values["input"], values["other"]


def _input(node: Node) -> tuple[Node]:
    return (cast(Node, node.args[0] if node.args else node.kwargs["input"]),)


def _binary(kind: str) -> Callable[[TracedTensors, Node], Read]:
    def read_binary(tensors: TracedTensors, node: Node) -> Read:
        left, right = _operands(node)
        if all(isinstance(term, Node) and term in tensors.names for term in (left, right)):
            shapes = [tuple(tensors.values[cast(Node, term)].shape) for term in (left, right)]
            _check_fit(kind, *shapes)
            if shapes[1] != shapes[0] and shapes[0][2:] == (1, 1):
                left, right = right, left  # the gate is the second factor
            return kind, (cast(Node, left), cast(Node, right)), {}
        return _affine(tensors, node, kind, left, right)

    return read_binary


def _check_fit(kind: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    """Sums are of equal shapes; of products one factor may be a gate `[N, C, 1, 1]`.

    Raises:
        Unreadable: others.
    """
    gates = kind == "mul" and len(left) == len(right) == 4
    if left == right or (gates and ((*left[:2], 1, 1) == right or (*right[:2], 1, 1) == left)):
        return
    remedy = "or one of them [N,C,1,1]" if kind == "mul" else "resize or project one of them"
    raise Unreadable(f"{kind} of {list(left)} and {list(right)} is not known: both must have one shape, {remedy}")


def _affine(tensors: TracedTensors, node: Node, kind: str, left: Any, right: Any) -> Read:
    """A sum or product with a constant, for each channel: a BatchNorm by another name."""
    tensor, other = (left, right) if isinstance(left, Node) and left in tensors.names else (right, left)
    constant = torch.as_tensor(tensors.constant(other), dtype=torch.float32)
    channels = int(tensors.values[node].shape[1])
    if constant.numel() not in (1, channels):
        raise Unreadable("a constant operand must be one number, or one for each channel")
    constant = constant.reshape(-1).expand(channels)
    swapped = tensor is right
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    factor, offset = {
        "add": (ones, constant),
        "sub": (-ones, constant) if swapped else (ones, -constant),
        "mul": (constant, zeros),
        "div": (1 / constant, zeros),
    }[kind]
    if kind == "div" and swapped:
        raise Unreadable("a constant divided by a tensor is not known")
    return "bn", (cast(Node, tensor),), {"factor": factor, "offset": offset}


def _only_constant(kind: str) -> Callable[[TracedTensors, Node], Read]:
    def read_constant(tensors: TracedTensors, node: Node) -> Read:
        left, right = _operands(node)
        if all(isinstance(term, Node) and term in tensors.names for term in (left, right)):
            raise Unreadable(f"a {kind} of two tensors is not known: use an addition or a product")
        return _affine(tensors, node, kind, left, right)

    return read_constant


def _concat(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "tensors", "dim", dim=0)
    if values["dim"] not in (1, -3):
        raise Unreadable(f"a concatenation along dimension {values['dim']} is not known: only of channels")
    return "concat", tuple(values["tensors"]), {}


def _resize_kind(mode: str, align_corners: bool | None) -> str:
    if mode == "nearest":
        return "nearest"
    if mode != "bilinear" or align_corners:
        raise Unreadable(
            f"a resize with mode {mode!r} and align_corners={align_corners} is not known: use bilinear, False"
        )
    return "resize"


def _interpolate(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "input", "size", "scale_factor", "mode", "align_corners", mode="nearest", align_corners=None)
    return _resize_kind(values["mode"], values["align_corners"]), (values["input"],), {}


def _unary(function: str) -> Callable[[TracedTensors, Node], Read]:
    return lambda tensors, node: ("activation", _input(node), {"function": function})


def _silu(tensors: TracedTensors, node: Node) -> Read:
    return "silu", _input(node), {}


def _pool_values(node: Node) -> dict[str, Any]:
    values = _bound(node, "input", "kernel_size", "stride", "padding", stride=None, padding=0)
    kernel = _pair(values["kernel_size"])
    return {"kernel": kernel, "stride": _pair(values["stride"] or kernel), "padding": _pair(values["padding"])}


def _mean(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "input", "dim", "keepdim", dim=None, keepdim=False)
    dim = values["dim"]
    dims = sorted(d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ()))
    if dims != [2, 3] or len(tensors.values[values["input"]].shape) != 4:
        raise Unreadable("a mean is known over height and width alone: `x.mean((2, 3))`")
    return "mean", (values["input"],), {}


def _adaptive(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "input", "output_size")
    if values["output_size"] not in (1, (1, 1), [1, 1]):
        raise Unreadable("an adaptive pooling is known to 1x1 alone")
    return "mean", (values["input"],), {}


def _flatten(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "input", "start_dim", "end_dim", start_dim=0, end_dim=-1)
    if (values["start_dim"], values["end_dim"]) not in ((1, -1), (1, 3)):
        raise Unreadable("flatten must keep the batch and flatten all the rest: `x.flatten(1)`")
    return "flatten", (values["input"],), {}


def _pad(tensors: TracedTensors, node: Node) -> Read:
    values = _bound(node, "input", "pad", "mode", "value", mode="constant", value=0)
    if values["mode"] != "constant" or values["value"] or len(values["pad"]) != 4:
        raise Unreadable("a padding is known with zeros, of height and width")
    return "pad", (values["input"],), {"padding": tuple(values["pad"])}


def _slice(tensors: TracedTensors, node: Node) -> Read:
    """`x[:, 1]`, `x[:, 1:3]`, `x[:, :, 0, 0]`: channels, or a map of one cell taken as a vector."""
    source, index = cast(Node, node.args[0]), node.args[1]
    index = index if isinstance(index, tuple) else (index,)
    whole = slice(None)
    if not isinstance(source, Node) or source not in tensors.names or not index or index[0] != whole:
        raise Unreadable("an index is known into channels alone: `x[:, 1:3]`")
    channels = int(tensors.values[source].shape[1])
    if len(index) == 4 and index[1] == whole and index[2:] == (0, 0) and tensors.values[source].shape[2:] == (1, 1):
        return "identity", (source,), {}
    if len(index) != 2:
        raise Unreadable("an index is known into channels alone: `x[:, 1:3]`")
    chosen = index[1]
    if isinstance(chosen, int):
        start = chosen % channels
        return "slice", (source,), {"start": start, "stop": start + 1}
    if not isinstance(chosen, slice) or chosen.step not in (None, 1):
        raise Unreadable("an index is known into channels one after another: `x[:, 1:3]`")
    start, stop, _ = chosen.indices(channels)
    return "slice", (source,), {"start": start, "stop": stop}


def _viewed(tensors: TracedTensors, node: Node) -> Read:
    """A view that only drops or adds dimensions of size one, or flattens all but the batch."""
    source = cast(Node, node.args[0])
    before, after = tensors.values[source].shape, tensors.values[node].shape
    if [n for n in before if n != 1] == [n for n in after if n != 1]:
        return "identity", (source,), {}
    if len(after) == 2 and before[0] == after[0]:
        return "flatten", (source,), {}
    raise Unreadable("a view is known that flattens all but the batch, or drops dimensions of size one")


_add, _mul = _binary("add"), _binary("mul")

FUNCTIONS: dict[Any, Callable[[TracedTensors, Node], Read]] = {
    operator.add: _add, operator.iadd: _add, torch.add: _add, "add": _add, "add_": _add,
    operator.mul: _mul, operator.imul: _mul, torch.mul: _mul, "mul": _mul, "mul_": _mul,
    operator.sub: _only_constant("sub"), torch.sub: _only_constant("sub"), "sub": _only_constant("sub"),
    operator.truediv: _only_constant("div"), torch.div: _only_constant("div"), "div": _only_constant("div"),
    torch.cat: _concat, torch.concat: _concat,
    F.interpolate: _interpolate,
    F.relu: _unary("relu"), torch.relu: _unary("relu"), "relu": _unary("relu"), "relu_": _unary("relu"),
    F.relu6: _unary("relu6"), F.hardswish: _unary("hardswish"), F.hardsigmoid: _unary("hardsigmoid"),
    torch.sigmoid: _unary("sigmoid"), F.sigmoid: _unary("sigmoid"), "sigmoid": _unary("sigmoid"),
    torch.tanh: _unary("tanh"), F.tanh: _unary("tanh"), "tanh": _unary("tanh"),
    F.silu: _silu,
    F.max_pool2d: lambda tensors, node: ("max_pool", _input(node), _pool_values(node)),
    F.avg_pool2d: lambda tensors, node: ("avg_pool", _input(node), _pool_values(node)),
    F.adaptive_avg_pool2d: _adaptive,
    torch.mean: _mean, "mean": _mean,
    torch.flatten: _flatten, "flatten": _flatten,
    "view": _viewed, "reshape": _viewed, "squeeze": _viewed, torch.squeeze: _viewed, "unsqueeze": _viewed,
    "contiguous": _viewed,
    F.pad: _pad,
    F.dropout: lambda tensors, node: ("identity", _input(node), {}),
    operator.getitem: _slice,
}  # fmt: skip
"""By function, or the name of a tensor's method: reads a call into kind, tensors read and values."""
