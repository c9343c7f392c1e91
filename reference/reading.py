"""Reading a float network: `torch.fx` traces the module, and each step becomes a `FloatOp` of a known kind.

Nothing is changed here; `rewrites.py` brings the steps into the form that has int8 operators. Whatever is not
known is collected, so that one error names all of it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node, Tracer

from litehrnet_stage2.reference.errors import InputError


class ReadError(InputError):
    """A network has steps that have no int8 form here."""


class Unreadable(InputError):  # noqa: N818  # it becomes part of a ReadError
    """One step cannot be read; the message says why, and the remedy."""


@dataclass(frozen=True)
class FloatOp:
    """One step of a float network, which writes the tensor `name`.

    Attributes:
        kind: `conv`, `bn`, `linear`, `activation`, `silu`, `add`, `mul`, `concat`, `resize`, `nearest`, `max_pool`,
            `avg_pool`, `mean`, `flatten`, `pad`, `slice` or `identity`.
        reads: the tensors that it reads.
        shape: of its result, for the example inputs.
        values: what belongs to the kind, such as the `module` of a convolution or the `factor` of a resize.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FloatNetwork:
    """The steps of a network, in order, and its borders.

    Attributes:
        inputs: names of the inputs.
        ops: the steps.
        outputs: of each output, by its name, the tensor.
    """

    inputs: tuple[str, ...]
    ops: tuple[FloatOp, ...]
    outputs: Mapping[str, str]


def read(
    module: nn.Module, examples: Mapping[str, Tensor], output_names: tuple[str, ...] | None = None
) -> FloatNetwork:
    """Read a network with example inputs, float32 `[N, C, H, W]` by the names of `forward`'s parameters.

    Raises:
        ReadError: the network cannot be traced or run, or has steps that are not known; the message lists all of them.
    """
    _check_weights(module)
    graph, values = _trace(module, examples)
    reader = _Reader(module, values)
    for node in graph.nodes:
        reader.take(node)
    if reader.problems:
        raise ReadError("the network cannot become one integer function: " + "; ".join(reader.problems))
    inputs = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph.nodes if node.op == "output")
    return FloatNetwork(inputs, tuple(reader.ops), _outputs(output, reader.names, output_names, inputs))


def _check_weights(module: nn.Module) -> None:
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


def _trace(module: nn.Module, examples: Mapping[str, Tensor]) -> tuple[torch.fx.Graph, dict[Node, Any]]:
    name = type(module).__name__
    training = [part for part in module.modules() if part.training]
    module.eval()
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
    else:
        try:
            with torch.no_grad():
                recorder.run(*examples.values())
        except Exception as error:  # whatever torch raises where shapes do not fit
            given = ", ".join(f"{label} {list(x.shape)}" for label, x in examples.items()) or "none"
            raise ReadError(
                f"`{name}` cannot run on the example inputs ({given}), it fails at `{recorder.failed}`: "
                f"{_reason(error)}"
            ) from error
    finally:
        for part in training:
            part.training = True
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


class _Reader:
    def __init__(self, module: nn.Module, values: Mapping[Node, Any]) -> None:
        self.module = module
        self.values = values
        self.ops: list[FloatOp] = []
        self.names: dict[Node, str] = {}
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


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


LABELS = {"interpolate": "resize", "adaptive_avg_pool2d": "mean", "cat": "concat", "iadd": "add", "imul": "mul"}
"""What some functions are called in a tensor's name."""


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


def _binary(kind: str) -> Callable[[_Reader, Node], Read]:
    def read_binary(reader: _Reader, node: Node) -> Read:
        left, right = _operands(node)
        if all(isinstance(term, Node) and term in reader.names for term in (left, right)):
            shapes = [tuple(reader.values[cast(Node, term)].shape) for term in (left, right)]
            _check_fit(kind, *shapes)
            if shapes[1] != shapes[0] and shapes[0][2:] == (1, 1):
                left, right = right, left  # the gate is the second factor
            return kind, (cast(Node, left), cast(Node, right)), {}
        return _affine(reader, node, kind, left, right)

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


def _affine(reader: _Reader, node: Node, kind: str, left: Any, right: Any) -> Read:
    """A sum or product with a constant, for each channel: a BatchNorm by another name."""
    tensor, other = (left, right) if isinstance(left, Node) and left in reader.names else (right, left)
    constant = torch.as_tensor(reader.constant(other), dtype=torch.float32)
    channels = int(reader.values[node].shape[1])
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


def _only_constant(kind: str) -> Callable[[_Reader, Node], Read]:
    def read_constant(reader: _Reader, node: Node) -> Read:
        left, right = _operands(node)
        if all(isinstance(term, Node) and term in reader.names for term in (left, right)):
            raise Unreadable(f"a {kind} of two tensors is not known: use an addition or a product")
        return _affine(reader, node, kind, left, right)

    return read_constant


def _concat(reader: _Reader, node: Node) -> Read:
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


def _interpolate(reader: _Reader, node: Node) -> Read:
    values = _bound(node, "input", "size", "scale_factor", "mode", "align_corners", mode="nearest", align_corners=None)
    return _resize_kind(values["mode"], values["align_corners"]), (values["input"],), {}


def _unary(function: str) -> Callable[[_Reader, Node], Read]:
    return lambda reader, node: ("activation", _input(node), {"function": function})


def _silu(reader: _Reader, node: Node) -> Read:
    return "silu", _input(node), {}


def _pool_values(node: Node) -> dict[str, Any]:
    values = _bound(node, "input", "kernel_size", "stride", "padding", stride=None, padding=0)
    kernel = _pair(values["kernel_size"])
    return {"kernel": kernel, "stride": _pair(values["stride"] or kernel), "padding": _pair(values["padding"])}


def _mean(reader: _Reader, node: Node) -> Read:
    values = _bound(node, "input", "dim", "keepdim", dim=None, keepdim=False)
    dim = values["dim"]
    dims = sorted(d % 4 for d in ((dim,) if isinstance(dim, int) else dim or ()))
    if dims != [2, 3] or len(reader.values[values["input"]].shape) != 4:
        raise Unreadable("a mean is known over height and width alone: `x.mean((2, 3))`")
    return "mean", (values["input"],), {}


def _adaptive(reader: _Reader, node: Node) -> Read:
    values = _bound(node, "input", "output_size")
    if values["output_size"] not in (1, (1, 1), [1, 1]):
        raise Unreadable("an adaptive pooling is known to 1x1 alone")
    return "mean", (values["input"],), {}


def _flatten(reader: _Reader, node: Node) -> Read:
    values = _bound(node, "input", "start_dim", "end_dim", start_dim=0, end_dim=-1)
    if (values["start_dim"], values["end_dim"]) not in ((1, -1), (1, 3)):
        raise Unreadable("flatten must keep the batch and flatten all the rest: `x.flatten(1)`")
    return "flatten", (values["input"],), {}


def _pad(reader: _Reader, node: Node) -> Read:
    values = _bound(node, "input", "pad", "mode", "value", mode="constant", value=0)
    if values["mode"] != "constant" or values["value"] or len(values["pad"]) != 4:
        raise Unreadable("a padding is known with zeros, of height and width")
    return "pad", (values["input"],), {"padding": tuple(values["pad"])}


def _slice(reader: _Reader, node: Node) -> Read:
    """`x[:, 1]`, `x[:, 1:3]`, `x[:, :, 0, 0]`: channels, or a map of one cell taken as a vector."""
    source, index = cast(Node, node.args[0]), node.args[1]
    index = index if isinstance(index, tuple) else (index,)
    whole = slice(None)
    if not isinstance(source, Node) or source not in reader.names or not index or index[0] != whole:
        raise Unreadable("an index is known into channels alone: `x[:, 1:3]`")
    channels = int(reader.values[source].shape[1])
    if len(index) == 4 and index[1] == whole and index[2:] == (0, 0) and reader.values[source].shape[2:] == (1, 1):
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


def _viewed(reader: _Reader, node: Node) -> Read:
    """A view that only drops or adds dimensions of size one, or flattens all but the batch."""
    source = cast(Node, node.args[0])
    before, after = reader.values[source].shape, reader.values[node].shape
    if [n for n in before if n != 1] == [n for n in after if n != 1]:
        return "identity", (source,), {}
    if len(after) == 2 and before[0] == after[0]:
        return "flatten", (source,), {}
    raise Unreadable("a view is known that flattens all but the batch, or drops dimensions of size one")


_add, _mul = _binary("add"), _binary("mul")

FUNCTIONS: dict[Any, Callable[[_Reader, Node], Read]] = {
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
    F.max_pool2d: lambda reader, node: ("max_pool", _input(node), _pool_values(node)),
    F.avg_pool2d: lambda reader, node: ("avg_pool", _input(node), _pool_values(node)),
    F.adaptive_avg_pool2d: _adaptive,
    torch.mean: _mean, "mean": _mean,
    torch.flatten: _flatten, "flatten": _flatten,
    "view": _viewed, "reshape": _viewed, "squeeze": _viewed, torch.squeeze: _viewed, "unsqueeze": _viewed,
    "contiguous": _viewed,
    F.pad: _pad,
    F.dropout: lambda reader, node: ("identity", _input(node), {}),
    operator.getitem: _slice,
}  # fmt: skip
"""By function, or the name of a tensor's method: reads a call into kind, tensors read and values."""
