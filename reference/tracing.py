"""`torch.fx` traces a module and runs it once: a graph, and what every node of it gave for the example inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node, Tracer

from litehrnet_stage2.reference.float_network import ReadError


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every part of a module in `eval()`, and as it was afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def check_weights(module: nn.Module) -> None:
    """Refuse weights that no float32 network has.

    Raises:
        ReadError: one is of another dtype, NaN or infinite.
    """
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise ReadError(f"`{name}` is {tensor.dtype}: a network of float32 is due, as `.float()` makes it")
        if not torch.isfinite(tensor).all():
            raise ReadError(f"`{name}` holds values that are NaN or infinite: load weights that are finite")


class _Recorder(Interpreter):
    """Runs a traced network and keeps what every node gave; of a node that raises, `failed` is the name."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.values: dict[Node, Any] = {}
        self.failed = ""
        self.extra_traceback = False

    def run_node(self, n: Node) -> Any:
        """Run one node and keep its result."""
        self.failed = str(n.target) if n.op == "call_module" else n.name
        self.values[n] = super().run_node(n)
        return self.values[n]


def trace(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[torch.fx.Graph, dict[Node, Any]]:
    """The graph of a network in `eval()`, and the value of every node for its inputs, float32 `[N, C, H, W]`.

    Raises:
        ReadError: the network cannot be traced or run, or changes a tensor in place that is read again.
    """
    with evaluating(module):
        return _traced(module, examples)


def _traced(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[torch.fx.Graph, dict[Node, Any]]:
    name = type(module).__name__
    try:
        graph = Tracer().trace(module)
        _check_in_place(module, graph)
        graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        recorder = _Recorder(GraphModule(module, graph))
    except ReadError:
        raise
    except Exception as error:  # whatever a person's own forward raises
        raise ReadError(
            f"`{name}` cannot be read by torch.fx ({_reason(error)}): its forward must take the declared inputs and "
            "may not branch on values of tensors"
        ) from error
    try:
        with torch.no_grad():
            recorder.run(*examples.values())
    except Exception as error:  # whatever torch raises where shapes do not fit
        given = ", ".join(f"{label} {list(x.shape)}" for label, x in examples.items()) or "none"
        raise ReadError(
            f"`{name}` cannot run on the example inputs ({given}), it fails at `{recorder.failed}`: {_reason(error)}"
        ) from error
    return graph, recorder.values


def _check_in_place(module: nn.Module, graph: torch.fx.Graph) -> None:
    """Refuse a step that changes a tensor which is read again: a traced graph would read the tensor as it was.

    Raises:
        ReadError: it names the step.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if _in_place(module, node) and isinstance(node.args[0], Node):
            changed = node.args[0]
            if any(position[user] > position[node] for user in changed.users):
                name = node.target if node.op == "call_module" else node.name
                raise ReadError(
                    f"`{name}` changes `{changed.name}` in place, which is read again after it: use its result alone, "
                    "or set `inplace=False`"
                )


def _in_place(module: nn.Module, node: Node) -> bool:
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return bool(getattr(layer, "inplace", False)) and not isinstance(layer, (nn.Dropout, nn.Dropout2d))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name = getattr(node.target, "__name__", "")
    if node.op != "call_function" or not node.args:
        return False
    return name in ("iadd", "isub", "imul", "itruediv") or name.endswith("_") or bool(node.kwargs.get("inplace"))


def _reason(error: Exception) -> str:
    """What it says, without the graph that torch.fx adds behind it."""
    said = str(error).split("\n\nWhile executing")[0]
    return " ".join(said.split())[:300] or type(error).__name__
