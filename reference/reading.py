"""Reading a float network: each step of its traced graph becomes a `FloatOp` of a known kind.

Nothing is changed here; `rewrites.py` brings the steps into the form that has int8 operators. Whatever is not
known is collected, so that one error names all of it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.fx import Node

from litehrnet_stage2.reference.float_network import FloatNetwork, FloatOp, ReadError, Unreadable
from litehrnet_stage2.reference.float_steps import FUNCTIONS, MODULES, TracedTensors
from litehrnet_stage2.reference.tracing import check_weights, trace


def read(
    module: nn.Module, examples: Mapping[str, Tensor], output_names: tuple[str, ...] | None = None
) -> FloatNetwork:
    """Read a network with example inputs, float32 `[N, C, H, W]` by the names of `forward`'s parameters.

    Raises:
        ReadError: the network cannot be traced or run, or has steps that are not known; the message lists all of them.
    """
    check_weights(module)
    graph, values = trace(module, examples)
    reader = _Reader(module, values)
    for node in graph.nodes:
        reader.take(node)
    if reader.problems:
        raise ReadError("the network cannot become one integer function: " + "; ".join(reader.problems))
    inputs = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph.nodes if node.op == "output")
    return FloatNetwork(inputs, tuple(reader.ops), _outputs(output, reader.names, output_names, inputs))


def _outputs(
    output: Node, names: Mapping[Node, str], given: tuple[str, ...] | None, inputs: tuple[str, ...]
) -> Mapping[str, str]:
    """The outputs by name: keys of a dict or fields of a dataclass or named tuple that the network returns."""
    (result,) = output.args
    if isinstance(result, Node) and dataclasses.is_dataclass(result.target):
        result = dict(result.kwargs) or dict(
            zip((f.name for f in dataclasses.fields(result.target)), result.args, strict=False)
        )
    if isinstance(result, Mapping):
        found = dict(result)
    else:
        items = result if isinstance(result, (tuple, list)) else (result,)
        labels = getattr(result, "_fields", None) or [f"y{i}" for i in range(len(items))]
        found = dict(zip(labels, items, strict=True))
    if given is not None:
        if len(given) != len(found) or len(set(given)) != len(given):
            raise ReadError(f"the network has {len(found)} outputs; {len(given)} different names are needed: {given}")
        found = dict(zip(given, found.values(), strict=True))
    tensors: dict[str, str] = {}
    for label, node in found.items():
        if not isinstance(node, Node) or node not in names:
            raise ReadError(f"the output `{label}` is no tensor that a known operator gives")
        if names[node] in inputs:
            raise ReadError(f"the output `{label}` is the input `{names[node]}`: there is nothing to compute")
        if str(label) in tensors:
            raise ReadError(f"two outputs are called `{label}`: give each a name of its own")
        if not str(label):
            raise ReadError("an output has an empty name: give it one of its own")
        tensors[str(label)] = names[node]
    if len(set(tensors.values())) != len(tensors):
        raise ReadError(f"two of the outputs {', '.join(tensors)} are one tensor: return it once")
    return tensors


class _Reader(TracedTensors):
    def __init__(self, module: nn.Module, values: Mapping[Node, Any]) -> None:
        super().__init__(values)
        self.module = module
        self.ops: list[FloatOp] = []
        self.problems: list[str] = []
        self._calls = Counter(str(node.target) for node in values if node.op == "call_module")
        self._lone = Counter(_owner(node) for node in values if node.op in ("call_function", "call_method"))
        self._taken: set[str] = set()

    def take(self, node: Node) -> None:
        """Append a node's step, or the reason why it has none."""
        match node.op:
            case "placeholder":
                self.names[node] = str(node.target)
                self._taken.add(str(node.target))
            case "output" | "get_attr":
                pass
            case "call_function" if dataclasses.is_dataclass(node.target):
                pass  # what the network returns
            case _:
                name = self._name(node)
                try:
                    kind, reads, values = self._read(node)
                    missing = [read for read in reads if read not in self.names]
                    if missing:
                        raise Unreadable(f"it reads `{missing[0].name}`, which is no tensor of the network")
                    shape = tuple(self.values[node].shape)
                    self.ops.append(FloatOp(name, kind, tuple(self.names[r] for r in reads), shape, values))
                except Unreadable as error:
                    self.problems.append(f"`{name}`: {error}")
                self.names[node] = name

    def _read(self, node: Node) -> tuple[str, tuple[Node, ...], dict[str, Any]]:
        if node.op == "call_module":
            layer = self.module.get_submodule(str(node.target))
            reader = MODULES.get(type(layer))
            if reader is None:
                raise Unreadable(_remedy(type(layer).__name__))
            if self._calls[str(node.target)] > 1 and any(True for _ in layer.parameters()):
                raise Unreadable("it is used twice, and has weights: give each use a module of its own")
            kind, values = reader(layer)
            return kind, (*cast(tuple[Node, ...], node.args), *cast(tuple[Node, ...], node.kwargs.values())), values
        key: Any = node.target
        function = FUNCTIONS.get(key)
        if function is None:
            raise Unreadable(_remedy(getattr(key, "__name__", str(key))))
        return function(self, node)

    def _name(self, node: Node) -> str:
        """The module's own; of a function, that of the module it stands in, then its own unless it is alone there."""
        if node.op == "call_module":
            name = str(node.target)
        else:
            owner = _owner(node)
            label = node.target if isinstance(node.target, str) else node.target.__name__
            alone = owner and self._lone[owner] == 1 and not any(self.module.get_submodule(owner).children())
            name = owner if alone else ".".join(filter(None, (owner, LABELS.get(label, label))))
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self._taken.add(unique)
        return unique


def _owner(node: Node) -> str:
    return next(reversed(node.meta.get("nn_module_stack", {})), "")


def _remedy(what: str) -> str:
    known = {
        "LeakyReLU": "use ReLU or SiLU, XNNPACK's LeakyReLU rounds another way than ONNX Runtime's",
        "leaky_relu": "use ReLU or SiLU, XNNPACK's LeakyReLU rounds another way than ONNX Runtime's",
        "GELU": "use SiLU or Hardswish",
        "PReLU": "use ReLU or SiLU",
        "ConvTranspose2d": "use a nearest or bilinear resize and a convolution",
    }
    remedy = known.get(what, "replace it by one of the operators that docs/whole-network.md lists")
    return f"{what} has no int8 form that every runtime computes alike: {remedy}"


LABELS = {"interpolate": "resize", "adaptive_avg_pool2d": "mean", "cat": "concat", "iadd": "add", "imul": "mul"}
"""What some functions are called in a tensor's name."""
