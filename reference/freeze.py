"""Freezing: from a calibrated or fine-tuned QATStage2 to the integer function, with its proof.

Weights become int8, biases land on the grid of their accumulator, and each scale on which runtimes could
disagree is nudged, by 2 parts in a million at a time, until they provably do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from litehrnet_stage2.reference import arithmetic
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import (
    INPUT,
    SIGMOID_SCALE,
    Add,
    Conv,
    IntegerFunction,
    Node,
    Quantization,
    Resize,
    SiLU,
)
from litehrnet_stage2.reference.qat import (
    QATStage2,
    QuantAdd,
    QuantConv,
    QuantProjectUp,
    QuantSiLU,
)
from litehrnet_stage2.reference.quantizers import WEIGHT_QMAX, ActivationQuantizer

SCALE_STEP = 2.0**-19  # 1.9e-6, relative: what a nudge moves a scale by
MOST_NUDGES = 4096

# What the runtimes' kernels accept; outside of these they refuse the program or fall back to another rule.
CONV_MULTIPLIER = (2.0**-32, 2.0**8)  # XNNPACK, qs8-qc8w convolution
ADD_RATIO = (2.0**-10, 2.0**8)  # XNNPACK, qs8 addition (MLAS on Arm: 2^-14)
MUL_RATIO = (2.0**-16, 2.0**8)  # XNNPACK, qs8 multiplication
LARGEST_ACCUMULATOR = 2**24  # what float32 still counts by ones: the Core ML program sums in it
LARGEST_BIAS = 2**22  # what comes back from float32 as the same integer, however a converter divides


class FreezeError(InputError):
    """The network cannot be frozen so that every runtime computes the same codes."""


@dataclass(frozen=True)
class Proof:
    """What was checked when freezing.

    Attributes:
        additions: additions of which all 65,536 code pairs agree under every rule.
        silus: SiLU tables of which no entry is near a tie.
        rules: the rules of addition compared.
        nudges: relative change of each scale that had to move, by tensor name.
        largest_accumulator: the largest magnitude any convolution's sum can reach, in codes.
    """

    additions: int
    silus: int
    rules: tuple[str, ...]
    nudges: dict[str, float]
    largest_accumulator: int


@torch.no_grad()
def freeze(model: QATStage2) -> tuple[IntegerFunction, Proof]:
    """The integer function of a calibrated or fine-tuned network, and what was proved of it.

    Raises:
        FreezeError: ranges were never set, a value is not finite, a scale is outside of what a runtime
            accepts, a sum could leave float32's integers, or no nudge makes the runtimes agree.
    """
    builder = _Builder()
    builder.write(INPUT, model.input)
    tensors: dict[str, str] = {}  # of each fx node, the tensor it stands for
    outputs: tuple[str, str] | None = None
    for node in _LeafTracer().trace(model).nodes:
        reads = [tensors[argument.name] for argument in node.all_input_nodes if argument.name in tensors]
        match node.op:
            case "placeholder":
                tensors[node.name] = INPUT
            case "output":
                outputs = cast(tuple[str, str], tuple(reads))
            case "call_module":
                leaf = model.get_submodule(str(node.target))
                tensors[node.name] = builder.lower(str(node.target), leaf, reads)
    assert outputs is not None
    function = IntegerFunction(
        config=model.config, quantization=builder.quantization, nodes=tuple(builder.nodes), outputs=outputs
    )
    return function, builder.proof()


class _LeafTracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaves = (QuantConv, QuantSiLU, QuantAdd, QuantProjectUp, ActivationQuantizer, nn.Identity)
        return isinstance(m, leaves)


@dataclass
class _Builder:
    quantization: dict[str, Quantization] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    nudges: dict[str, float] = field(default_factory=dict)

    def lower(self, name: str, leaf: nn.Module, reads: list[str]) -> str:
        """Append the nodes of one leaf module; returns the tensor that holds its result."""
        match leaf:
            case ActivationQuantizer() | nn.Identity():
                return reads[0]
            case QuantConv():
                self._conv(name, leaf, reads[0])
            case QuantSiLU():
                self._silu(name, leaf, reads[0])
            case QuantAdd():
                self._add(name, leaf, (reads[0], reads[1]))
            case QuantProjectUp():
                self._conv(f"{name}.project", leaf.project, reads[0])
                self.quantization[f"{name}.resize"] = self.quantization[f"{name}.project"]
                self.nodes.append(Resize(name=f"{name}.resize", input=f"{name}.project"))
                return f"{name}.resize"
            case _:
                raise TypeError(f"no integer rule for {type(leaf).__name__} at `{name}`")
        return name

    def write(self, name: str, quantizer: ActivationQuantizer) -> None:
        """Give a tensor the quantiser's scale and zero point."""
        if not bool(quantizer.low < quantizer.high):
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
        # A channel that is nearly all bias (a pruned one) takes a coarser grid, so that its bias fits.
        finest = (np.abs(bias) / (float(self.quantization[read].scale) * LARGEST_BIAS)).astype(np.float32)
        scale = np.maximum(leaf.weight_quantizer.scale(leaf.weight).numpy(), finest)
        codes = np.clip(np.rint(weight / scale[:, None, None, None]), -WEIGHT_QMAX, WEIGHT_QMAX)
        grid = self.quantization[read].scale * scale  # float32
        node = Conv(
            name=name,
            input=read,
            weight=codes.astype(np.int8),
            weight_scale=scale,
            bias=np.clip(np.rint(bias / grid), -(2**31), 2**31 - 1).astype(np.int32),
            stride=leaf.stride,
            padding=leaf.padding,
            groups=leaf.groups,
        )
        self.nodes.append(node)

    def _silu(self, name: str, leaf: QuantSiLU, read: str) -> None:
        self._nudge(
            read,
            lambda q: arithmetic.sigmoid_margin(q) >= arithmetic.SIGMOID_MARGIN,
            "no scale near it keeps every sigmoid away from a tie",
        )
        self.write(name, leaf.output)
        inp = self.quantization[read]
        self._check(f"product of `{name}`", inp.scale * SIGMOID_SCALE / self.quantization[name].scale, MUL_RATIO)
        self._nudge(
            name,
            lambda q: arithmetic.product_margin(inp, q) >= arithmetic.PRODUCT_MARGIN,
            "no scale near it keeps every x*sigmoid(x) away from a tie",
        )
        self.nodes.append(SiLU(name=name, input=read))

    def _add(self, name: str, leaf: QuantAdd, reads: tuple[str, str]) -> None:
        self.write(name, leaf.output)
        qa, qb = (self.quantization[read] for read in reads)
        for read, q in zip(reads, (qa, qb), strict=True):
            self._check(f"ratio of `{read}` in `{name}`", q.scale / self.quantization[name].scale, ADD_RATIO)
        self._nudge(
            name,
            lambda q: not arithmetic.addition_disagreements(qa, qb, q),
            "no scale near it makes every runtime add all 65,536 code pairs alike",
        )
        self.nodes.append(Add(name=name, inputs=reads))

    def _nudge(self, name: str, agrees: Callable[[Quantization], bool], otherwise: str) -> None:
        """Move the scale of tensor `name` as little as makes it agree."""
        start = self.quantization[name]
        for factor in _nudges():
            candidate = Quantization(np.float32(start.scale * factor), start.zero_point)
            if agrees(candidate):
                self.quantization[name] = candidate
                if factor != 1:
                    self.nudges[name] = float(candidate.scale) / float(start.scale) - 1
                return
        raise FreezeError(f"scale of `{name}` (={start.scale}): {otherwise}; calibrate on other data")

    @staticmethod
    def _check(what: str, ratio: np.floating, bounds: tuple[float, float]) -> None:
        low, high = bounds
        if not low <= ratio < high:
            raise FreezeError(
                f"the {what} (={ratio:.3g}) must lie in [{low:.3g}, {high:.3g}), where every runtime has a kernel: "
                "a range is far too wide or narrow, calibrate on data like that of deployment"
            )

    def proof(self) -> Proof:
        """What holds of the nodes; checks the convolutions, whose output scales are final only now."""
        largest = 0
        for node in self.nodes:
            if isinstance(node, Conv):
                inp = self.quantization[node.input]
                multiplier = inp.scale * node.weight_scale / self.quantization[node.name].scale
                for extreme in (multiplier.min(), multiplier.max()):
                    self._check(f"multiplier of `{node.name}`", extreme, CONV_MULTIPLIER)
                reach = _reach(node, inp.zero_point)
                if reach >= LARGEST_ACCUMULATOR:
                    raise FreezeError(
                        f"a sum in `{node.name}` can reach {reach}, past 2^24: float32 runtimes would round it; "
                        "use fewer channels or smaller biases"
                    )
                largest = max(largest, reach)
        kinds = [type(node) for node in self.nodes]
        unit = Quantization(np.float32(1), 0)
        return Proof(
            additions=kinds.count(Add),
            silus=kinds.count(SiLU),
            rules=tuple(rule for rule, _ in arithmetic.additions(unit, unit, unit)),
            nudges=self.nudges,
            largest_accumulator=largest,
        )


def _nudges() -> Iterator[float]:
    yield 1.0
    for step in range(1, MOST_NUDGES):
        yield 1 + step * SCALE_STEP
        yield 1 - step * SCALE_STEP


def _reach(node: Conv, zero_point: int) -> int:
    """The largest magnitude of any channel's sum, whatever the input codes."""
    weight = node.weight.astype(np.int64).reshape(len(node.weight), -1)
    up, down = 127 - zero_point, -128 - zero_point
    positive, negative = np.maximum(weight, 0).sum(1), np.minimum(weight, 0).sum(1)
    bias: NDArray[np.int64] = node.bias.astype(np.int64)
    highest = bias + up * positive + down * negative
    lowest = bias + down * positive + up * negative
    return int(max(np.abs(highest).max(), np.abs(lowest).max()))
