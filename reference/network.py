"""Any network of known operators as a quantisation-aware module; `QATStage2` is the named case of it."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.float_network import FloatNetwork, FloatOp, ReadError
from litehrnet_stage2.reference.leaves import (
    Leaf,
    QuantAdd,
    QuantConcat,
    QuantConv,
    QuantMaxPool,
    QuantMean,
    QuantMul,
    QuantNearest,
    QuantResize,
    QuantSiLU,
    QuantTable,
)
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, check_calibration, set_mode
from litehrnet_stage2.reference.reading import read
from litehrnet_stage2.reference.reading_check import check_same
from litehrnet_stage2.reference.rewrites import Convolution, rewrite

EXAMPLES = 3
"""How many of the inputs that it was calibrated on a network keeps."""


@dataclass(frozen=True)
class Step:
    """One leaf of a network: reads tensors by name and writes the tensor `name`, which is the leaf's own path too."""

    name: str
    reads: tuple[str, ...]


class QuantizedNetwork(nn.Module):
    """A network of leaves that round what they write; starts in `Mode.FLOAT`, and rounds once calibrated.

    An ordinary `nn.Module` that trains in any loop: inputs float32 `[B, C, H, W]` in the order of `input_names`
    (pixels in [0, 1], or uint8), a dict of the outputs by name, float32 `[B, C, H, W]`. Modules keep the names that
    they have in the float network; BatchNorm is folded. What rounds an input is called `input.NAME`, or `input_.NAME`
    where the network has a module called `input`.

    Attributes:
        function_name: what artifacts are called after.
        input_names, output_names: of the borders, in order.
        pixels: the inputs that are pixels: code = pixel - 128.
        run_order: the leaves in the order in which they run.
        examples: the first inputs that it was calibrated on; not part of the state.
    """

    def __init__(
        self,
        name: str,
        network: FloatNetwork,
        leaves: Mapping[str, Leaf],
        steps: Sequence[Step],
        pixels: Collection[str],
    ) -> None:
        super().__init__()
        self.function_name = name
        self.input_names, self.output_names = network.inputs, tuple(network.outputs)
        self.pixels = frozenset(pixels)
        self.run_order = tuple(steps)
        self.examples: tuple[Tensor, ...] | None = None
        self._outputs = dict(network.outputs)
        taken = {path.partition(".")[0] for path in leaves}
        self._borders = next(name for name in ("input", "input_", "input__") if name not in taken)
        self.add_module(self._borders, nn.ModuleDict({name: ActivationQuantizer() for name in network.inputs}))
        for name_ in self.pixels:
            self.quantizer(name_).set_range(0.0, 1.0)
        for path, leaf in leaves.items():
            _place(self, path, leaf)

    def quantizer(self, name: str) -> ActivationQuantizer:
        """The quantiser of an input."""
        module = self.get_submodule(self._borders).get_submodule(name)
        assert isinstance(module, ActivationQuantizer)
        return module

    def share_quantizer(self, name: str, quantizer: ActivationQuantizer) -> None:
        """Let an input round as another tensor does."""
        self.get_submodule(self._borders).add_module(name, quantizer)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run every leaf."""
        tensors = {
            name: self.quantizer(name)(_as_float(x, pixels=name in self.pixels))
            for name, x in zip(self.input_names, inputs, strict=True)
        }
        for step in self.run_order:
            tensors[step.name] = self.get_submodule(step.name)(*(tensors[read] for read in step.reads))
        return {name: tensors[tensor] for name, tensor in self._outputs.items()}

    @property
    def output_tensors(self) -> Mapping[str, str]:
        """The tensor that each output is, by the output's name."""
        return self._outputs

    @property
    def calibrated(self) -> bool:
        """Whether the range of every tensor is known."""
        return all(module.calibrated for module in self.modules() if isinstance(module, ActivationQuantizer))

    @property
    def calibrated_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the inputs that it was calibrated on; empty where they are not known."""
        return tuple(tuple(x.shape) for x in self.examples or ())

    @torch.no_grad()
    def calibrate(self, *inputs: Tensor) -> QuantizedNetwork:
        """Set every range from batches of the inputs, then switch to `Mode.FAKE_QUANTIZE`.

        Raises:
            InputError: the number of inputs is another, one is all zero, or a value is not finite.
        """
        if len(inputs) != len(self.input_names):
            raise InputError(f"calibrate takes {', '.join(self.input_names)}, but was given {len(inputs)} tensors")
        counts = [len(x) for x in inputs]
        if not counts or min(counts) == 0 or len(set(counts)) > 1:
            raise InputError(f"calibrate takes as many examples of each input, one at least, but was given {counts}")
        for name, x in zip(self.input_names, inputs, strict=True):
            check_calibration(f"examples of `{name}`", x)
        fixed = {id(self.quantizer(name)) for name in self.pixels}
        free = [m for m in self.modules() if isinstance(m, ActivationQuantizer) and id(m) not in fixed]
        for quantizer in free:
            quantizer.forget()
            quantizer.mode = Mode.CALIBRATE
        for name in self.pixels:
            self.quantizer(name).mode = Mode.FAKE_QUANTIZE
        for batch in zip(*(torch.split(x, 8) for x in inputs), strict=True):
            self(*batch)
        set_mode(self, Mode.FAKE_QUANTIZE)
        self.examples = tuple(x[:EXAMPLES].clone() for x in inputs)
        return self


def quantize(
    module: nn.Module,
    examples: Tensor | Mapping[str, Tensor] | Sequence[Tensor],
    *,
    name: str = "network",
    outputs: tuple[str, ...] | None = None,
) -> QuantizedNetwork:
    """The quantisation-aware form of a float network, which is left as it is.

    Args:
        module: made of the operators that docs/whole-network.md lists.
        examples: one tensor for each input, `[N, C, H, W]`: float32, or uint8 where the input is pixels, which the
            network itself sees as float32 in [0, 1]. A mapping is by the names of `forward`'s parameters.
        name: what its artifacts are called after.
        outputs: names of the outputs; by default the keys of the dict, or the fields of the dataclass, that the network
            returns, or y0, y1...

    Raises:
        ReadError: the network cannot be read, or has operators that are not known: all of them are named.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"quantize takes a torch.nn.Module, but was given {module!r:.80}: make one first")
    if type(module).__module__.startswith("torch.nn.modules") and not list(module.children()):
        module = nn.Sequential(OrderedDict({type(module).__name__.lower(): module}))  # tracing has no name for the root
    named = _named(module, examples)
    for label, x in named.items():
        if x.dtype not in (torch.float32, torch.uint8):
            raise InputError(f"the input `{label}` is {x.dtype}: give float32, or uint8 where it is pixels")
    pixels = {label for label, x in named.items() if x.dtype == torch.uint8}
    floats = {label: _as_float(x, pixels=label in pixels) for label, x in named.items()}
    shapes = {label: tuple(x.shape) for label, x in floats.items()}
    network = rewrite(read(module, floats, outputs), shapes)
    network = _tied_apart(network, pixels)
    leaves = {op.name: LEAVES[op.kind](op) for op in network.ops}
    quantized = QuantizedNetwork(name, network, leaves, [Step(op.name, op.reads) for op in network.ops], pixels)
    _tie(quantized)
    check_same(module, quantized.eval(), floats)
    return quantized


def _named(module: nn.Module, examples: Any) -> dict[str, Tensor]:
    parameters = list(inspect.signature(module.forward).parameters)
    if isinstance(examples, Tensor):
        examples = (examples,)
    if not isinstance(examples, Mapping):
        examples = dict(zip(parameters, examples, strict=False))
    if unknown := [label for label in examples if label not in parameters]:
        raise InputError(
            f"`{type(module).__name__}.forward` has no input `{unknown[0]}`: it takes {', '.join(parameters)}"
        )
    return {label: examples[label] for label in parameters if label in examples}


def _as_float(x: Tensor, *, pixels: bool) -> Tensor:
    if x.dtype == torch.uint8:
        if not pixels:
            raise InputError("an input of floats was given uint8: declare it as pixels, by an example of uint8")
        return x.float() / 255
    return x


def _place(root: nn.Module, path: str, leaf: nn.Module) -> None:
    """Register a leaf under its dotted path, through modules that hold nothing else."""
    *parents, last = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            _add(root, parent, nn.Module(), path)
        root = root.get_submodule(parent)
    _add(root, last, leaf, path)


def _add(root: nn.Module, name: str, module: nn.Module, path: str) -> None:
    if hasattr(root, name):
        raise ReadError(f"a module called `{path}` is in the way of what quantize keeps there: give it another name")
    root.add_module(name, module)


# groups of tensors that share one quantiser

_MOVES_CODES = ("concat", "resize", "nearest", "max_pool")
_HAS_TIES = ("silu", "mul", "table")
_NONNEGATIVE = ("relu", "relu6", "unit", "sigmoid")


def _groups(network: FloatNetwork) -> list[set[str]]:
    groups: dict[str, set[str]] = {name: {name} for name in (*network.inputs, *(op.name for op in network.ops))}
    for op in network.ops:
        if op.kind in _MOVES_CODES:
            for read in op.reads:
                merged = groups[op.name] | groups[read]
                groups.update(dict.fromkeys(merged, merged))
    return [group for group in {id(group): group for group in groups.values()}.values() if len(group) > 1]


def _tied_apart(network: FloatNetwork, pixels: Collection[str]) -> FloatNetwork:
    """Tables where a group's one quantiser would change what is computed.

    Saturation is a ReLU only where the range begins at zero, so a table takes its result into the range of a group that
    has negative members. A SiLU or product of one scale with what it reads has ties that no scale moves, and pixels
    have a scale that cannot move: tables take these there too.
    """
    producers = {op.name: op for op in network.ops}
    for group in _groups(network):
        makers = [producers[name] for name in group if name in producers and producers[name].kind not in _MOVES_CODES]
        positive = [op for op in makers if op.values.get("activation", op.values.get("function")) in _NONNEGATIVE]
        mixed = len(positive) != len(makers) or bool(group & set(network.inputs) - set(pixels))
        for op in makers:
            saturates = mixed and op in positive and "activation" in op.values
            if saturates or (op.kind in _HAS_TIES and group & set(op.reads)):
                network = _apart(network, op)
        for name in sorted(group & set(pixels)):
            network = _requantized(network, name)
    return network


def _apart(network: FloatNetwork, op: FloatOp) -> FloatNetwork:
    table = FloatOp(f"{op.name}.requantized", "table", (op.name,), op.shape, {"function": "identity"})
    return _inserted(network, op.name, table)


def _requantized(network: FloatNetwork, name: str) -> FloatNetwork:
    """A table between pixels and those of their readers that only move codes."""
    shape = next(op.shape for op in network.ops if name in op.reads)
    table = FloatOp(f"{name}.requantized", "table", (name,), shape, {"function": "identity"})
    ops = [
        replace(op, reads=tuple(table.name if read == name else read for read in op.reads))
        if op.kind in _MOVES_CODES
        else op
        for op in network.ops
    ]
    return replace(network, ops=(table, *ops))


def _inserted(network: FloatNetwork, after: str, table: FloatOp) -> FloatNetwork:
    ops: list[FloatOp] = []
    for op in network.ops:
        if op.name == after:
            ops += [op, table]
        else:
            ops.append(replace(op, reads=tuple(table.name if read == after else read for read in op.reads)))
    outputs = {label: table.name if tensor == after else tensor for label, tensor in network.outputs.items()}
    return replace(network, ops=tuple(ops), outputs=outputs)


def _tie(network: QuantizedNetwork) -> None:
    """Give every leaf that only moves codes the quantiser of what it reads, and join those of a concatenation."""
    owner: dict[str, ActivationQuantizer] = {name: network.quantizer(name) for name in network.input_names}
    for step in network.run_order:
        leaf = cast(Leaf, network.get_submodule(step.name))
        if leaf.moves_codes:
            first, *others = (owner[read] for read in step.reads)
            for name, quantizer in owner.items():
                if any(quantizer is other for other in others) and quantizer is not first:
                    owner[name] = first
                    if name in network.input_names:
                        network.share_quantizer(name, first)
                    else:
                        cast(Leaf, network.get_submodule(name)).tie(first)
            leaf.tie(first)
        owner[step.name] = leaf.output


def _conv(op: FloatOp) -> Leaf:
    parts: Convolution = op.values["conv"]
    channels, per_group, height, width = parts.weight.shape
    conv = nn.Conv2d(per_group * parts.groups, channels, (height, width), parts.stride, 0, parts.dilation, parts.groups)
    leaf = QuantConv(conv, activation=op.values.get("activation"))
    leaf.padding = parts.padding
    with torch.no_grad():
        leaf.weight.copy_(parts.weight)
        leaf.bias.copy_(parts.bias)
    return leaf


def _max_pool(op: FloatOp) -> Leaf:
    rows, columns = op.values["padding"]
    return QuantMaxPool(op.values["kernel"], op.values["stride"], (rows, columns, rows, columns))


LEAVES: dict[str, Callable[[FloatOp], Leaf]] = {
    "conv": _conv,
    "silu": lambda op: QuantSiLU(),
    "add": lambda op: QuantAdd(activation=op.values.get("activation")),
    "mul": lambda op: QuantMul(),
    "table": lambda op: QuantTable(op.values["function"]),
    "mean": lambda op: QuantMean(op.values["cells"]),
    "resize": lambda op: QuantResize(op.values["factor"]),
    "nearest": lambda op: QuantNearest(op.values["factor"]),
    "max_pool": _max_pool,
    "concat": lambda op: QuantConcat(),
}
"""By kind of step: its leaf."""
