"""Rewrites: each brings one kind of float step into the form that has an int8 operator, and says what it keeps equal.

All are exact in real numbers, but for the border of nothing: no weight is approximated, no padding is moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.float_network import FloatNetwork, FloatOp, ReadError
from litehrnet_stage2.reference.functional import Padding
from litehrnet_stage2.reference.leaves import folded, padding_of
from litehrnet_stage2.reference.operators.mean import MOST_CELLS
from litehrnet_stage2.reference.operators.resize import TIE_BREAKING_BITS


@dataclass(frozen=True)
class Convolution:
    """A float convolution: weight `[O, I/groups, kh, kw]`, bias `[O]`, both float32, and where its taps lie."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def rewrite(network: FloatNetwork, input_shapes: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """All rewrites in order.

    Raises:
        ReadError: a step has no form that has an int8 operator; the message lists all of them.
    """
    for step in REWRITES:
        network = step(network, input_shapes)
    return network


def shapes_as_maps(network: FloatNetwork, input_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor as a map `[N, C, H, W]`: a flattened one has that of its source."""
    shapes = dict(input_shapes)
    for op in network.ops:
        if op.kind in ("flatten", "identity"):
            shapes[op.name] = shapes[op.reads[0]]
        else:
            shapes[op.name] = (*op.shape, 1, 1)[:4] if len(op.shape) == 2 else op.shape
    return shapes


def drop_what_computes_nothing(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """Dropout, Identity and views go."""
    return _without(network, lambda op: op.kind == "identity")


def convolutions_by_their_parts(network: FloatNetwork, shapes: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """Conv2d, Linear and AvgPool become convolutions: a Linear behind a Flatten has a kernel as large as the map."""
    maps = shapes_as_maps(network, shapes)
    ops = []
    for op in network.ops:
        match op.kind:
            case "conv":
                layer = cast(nn.Conv2d, op.values["module"])
                parts = Convolution(
                    layer.weight.detach().clone(),
                    _bias(layer),
                    cast(tuple[int, int], layer.stride),
                    padding_of(layer),
                    cast(tuple[int, int], layer.dilation),
                    layer.groups,
                )
            case "linear":
                layer = cast(Any, op.values["module"])
                _, channels, height, width = maps[op.reads[0]]
                weight = layer.weight.detach().clone()
                if weight.shape[1] != channels * height * width:
                    raise ReadError(f"`{op.name}` is a Linear over the last dimension of a map: flatten before it")
                parts = Convolution(weight.reshape(len(weight), channels, height, width), _bias(layer))
            case "avg_pool":
                height, width = op.values["kernel"]
                channels = maps[op.reads[0]][1]
                weight = torch.full((channels, 1, height, width), 1 / (height * width))
                rows, columns = op.values["padding"]
                parts = Convolution(
                    weight, torch.zeros(channels), op.values["stride"], (rows, columns, rows, columns), groups=channels
                )
            case _:
                ops.append(op)
                continue
        ops.append(replace(op, kind="conv", values={"conv": parts}))
    flat = _without(replace(network, ops=tuple(ops)), lambda op: op.kind == "flatten")
    return flat


def pad_in_the_convolution(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """Zero padding before a convolution becomes that convolution's own."""
    readers = _readers(network)
    padded = {op.name: op for op in network.ops if op.kind == "pad"}
    ops = []
    for op in network.ops:
        if op.kind == "pad":
            if any(reader.kind != "conv" for reader in readers[op.name]):
                raise ReadError(f"`{op.name}` pads what no convolution reads: pad in the operator that reads it")
            continue
        if op.kind == "conv" and op.reads[0] in padded:
            source = padded[op.reads[0]]
            left, right, top, bottom = source.values["padding"]
            conv = cast(Convolution, op.values["conv"])
            padding = tuple(a + b for a, b in zip(conv.padding, (top, left, bottom, right), strict=True))
            op = replace(op, reads=source.reads, values={"conv": replace(conv, padding=cast(Padding, padding))})
        ops.append(op)
    return replace(network, ops=tuple(ops))


def fold_into_the_convolution_after(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """A BatchNorm, or `(x - mean) / std`, without a convolution before it goes into the one after it, in float32.

    Only where that one pads nothing or nothing is added: the padded zeros would otherwise have to be the mean.
    """
    producers, readers = _producers(network), _readers(network)
    changed = dict(producers)
    into: dict[str, str] = {}  # of each step that went, the convolution
    for op in reversed(network.ops):
        if op.kind != "bn" or op.name in network.outputs.values() or len(readers[op.name]) != 1:
            continue
        if _folds_backwards(network, op, producers, readers):
            continue
        (reader,) = readers[op.name]
        after = changed[into.get(reader.name, reader.name)]
        if after.kind != "conv":
            continue
        conv, (factor, offset) = cast(Convolution, after.values["conv"]), _factor(op)
        if any(conv.padding) and bool(offset.any()):
            continue
        each = conv.weight.shape[1]
        group = torch.arange(len(conv.weight)).div(len(conv.weight) // conv.groups, rounding_mode="floor")
        read = group[:, None] * each + torch.arange(each)  # of each output channel, the input channels: [O, I/groups]
        bias = conv.bias + (conv.weight * offset[read][:, :, None, None]).sum(dim=(1, 2, 3))
        taken = replace(conv, weight=conv.weight * factor[read][:, :, None, None], bias=bias)
        changed[after.name] = replace(after, values={"conv": taken})
        into[op.name] = after.name
    return _without(replace(network, ops=tuple(changed[op.name] for op in network.ops)), lambda op: op.name in into)


def _folds_backwards(
    network: FloatNetwork, op: FloatOp, producers: Mapping[str, FloatOp], readers: Mapping[str, list[FloatOp]]
) -> bool:
    """Whether a BatchNorm goes into the convolution before it: one that only it reads."""
    source = producers.get(op.reads[0])
    if source is not None and source.kind == "bn":
        return _folds_backwards(network, source, producers, readers) and len(readers[source.name]) == 1
    alone = source is not None and len(readers[source.name]) == 1 and source.name not in network.outputs.values()
    return source is not None and source.kind == "conv" and alone


def fold_batch_norm(network: FloatNetwork, shapes: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """A BatchNorm goes into the convolution before it, in float32; where none is, it is a depthwise 1x1 of its own."""
    readers = _readers(network)
    done: dict[str, FloatOp] = {}
    renamed: dict[str, str] = {}
    for op in network.ops:
        op = replace(op, reads=tuple(renamed.get(read, read) for read in op.reads))
        if op.kind == "bn":
            factor, offset = _factor(op)
            source = done.get(op.reads[0])
            alone = (
                source is not None and len(readers[source.name]) == 1 and source.name not in network.outputs.values()
            )
            if source is not None and source.kind == "conv" and alone:
                conv = cast(Convolution, source.values["conv"])
                weight, bias = conv.weight.mul(factor[:, None, None, None]), conv.bias.mul(factor).add(offset)
                done[source.name] = replace(source, values={"conv": replace(conv, weight=weight, bias=bias)})
                renamed[op.name] = source.name
                readers[source.name] = readers[op.name]
                network = _redirect(network, op.name, source.name)
                continue
            op = replace(op, kind="conv", values={"conv": _per_channel(factor, offset)})
        done[op.name] = op
    return replace(network, ops=tuple(done.values()))


def activation_in_the_saturation(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """ReLU and ReLU6 after a convolution or addition become its saturation; Hardsigmoid goes into its weights.

    `hardsigmoid(x) = clamp(x/6 + 1/2, 0, 1)`; where no convolution is before it, a depthwise 1x1 is put there. Other
    activations, and these elsewhere, are tables.
    """
    readers = _readers(network)
    done: dict[str, FloatOp] = {}
    renamed: dict[str, str] = {}
    for op in network.ops:
        op = replace(op, reads=tuple(renamed.get(read, read) for read in op.reads))
        if op.kind != "activation":
            done[op.name] = op
            continue
        function: str = op.values["function"]
        source = done.get(op.reads[0])
        if source is None or not _may_saturate(network, source, readers, function):
            if function == "hardsigmoid":
                channels = op.shape[1]
                sixth = _per_channel(torch.full((channels,), 1 / 6), torch.full((channels,), 0.5))
                done[op.name] = replace(op, kind="conv", values={"conv": sixth, "activation": "unit"})
            else:
                done[op.name] = replace(op, kind="table")
            continue
        values = dict(source.values) | {"activation": function}
        if function == "hardsigmoid":
            conv = cast(Convolution, source.values["conv"])
            sixth = replace(conv, weight=conv.weight / 6, bias=conv.bias / 6 + 0.5)
            values |= {"conv": sixth, "activation": "unit"}
        done[source.name] = replace(source, values=values)
        renamed[op.name] = source.name
        readers[source.name] = readers[op.name]
        network = _redirect(network, op.name, source.name)
    return replace(network, ops=tuple(done.values()))


def _may_saturate(network: FloatNetwork, source: FloatOp, readers: Mapping[str, list[FloatOp]], function: str) -> bool:
    """Whether an activation can be the saturation of the step before it."""
    kinds = {"relu": ("conv", "add"), "relu6": ("conv", "add"), "hardsigmoid": ("conv",)}.get(function, ())
    alone = len(readers[source.name]) == 1 and source.name not in network.outputs.values()
    return source.kind in kinds and alone and "activation" not in source.values


def slices_as_convolutions(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """Channels taken from a convolution become a convolution of their own: units that differ need their own scales."""
    producers, readers = _producers(network), _readers(network)
    labels = {tensor: name for name, tensor in network.outputs.items()}
    ops: list[FloatOp] = []
    renamed: dict[str, str] = {}
    for op in network.ops:
        op = replace(op, reads=tuple(renamed.get(read, read) for read in op.reads))
        if op.kind == "slice":
            source = producers.get(op.reads[0])
            if source is None or source.kind != "conv" or cast(Convolution, source.values["conv"]).groups != 1:
                raise ReadError(
                    f"`{op.name}` takes channels of what is no ungrouped convolution: give it a convolution of its own"
                )
            conv = cast(Convolution, source.values["conv"])
            chosen = slice(op.values["start"], op.values["stop"])
            name = f"{source.name}.{labels.get(op.name, 'channels' + str(chosen.start))}"
            parts = replace(conv, weight=conv.weight[chosen].clone(), bias=conv.bias[chosen].clone())
            renamed[op.name] = name
            ops.append(FloatOp(name, "conv", source.reads, op.shape, dict(source.values) | {"conv": parts}))
            network = _redirect(network, op.name, name)
            continue
        only_sliced = readers[op.name] and all(reader.kind == "slice" for reader in readers[op.name])
        if not (op.kind == "conv" and only_sliced and op.name not in labels):
            ops.append(op)
    return replace(network, ops=tuple(ops))


def known_factors(network: FloatNetwork, shapes: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """The factor of each resize, of the sizes before and after; and the cells of each mean."""
    maps = shapes_as_maps(network, shapes)
    ops = []
    for op in network.ops:
        if op.kind in ("resize", "nearest"):
            before, after = maps[op.reads[0]][2:], op.shape[2:]
            factor = after[0] // before[0]
            if after != tuple(factor * size for size in before) or factor < 2:
                raise ReadError(f"`{op.name}` resizes {list(before)} to {list(after)}: only by one whole factor")
            if op.kind == "resize" and factor not in TIE_BREAKING_BITS:
                raise ReadError(
                    f"`{op.name}` is a bilinear resize by {factor}: only 2, 4 and 8 are the same in every runtime; "
                    "resize in steps, or by nearest"
                )
            op = replace(op, values={"factor": factor})
        elif op.kind == "mean":
            _, _, height, width = maps[op.reads[0]]
            if height * width > MOST_CELLS:
                raise ReadError(
                    f"`{op.name}` is the mean of {height * width} cells: at most {MOST_CELLS} are the same in every "
                    "runtime; pool in two steps"
                )
            op = replace(op, values={"cells": height * width})
        ops.append(op)
    return replace(network, ops=tuple(ops))


def projection_before_resize(network: FloatNetwork, _: Mapping[str, tuple[int, ...]]) -> FloatNetwork:
    """A pointwise convolution that alone reads a bilinear resize comes before it, on fewer cells.

    The resize's weights sum to one and the convolution is linear, so the two commute, its bias included.
    """
    readers = _readers(network)
    ops = list(network.ops)
    for op in network.ops:
        if op.kind != "resize" or op.name in network.outputs.values() or len(readers[op.name]) != 1:
            continue
        (conv,) = readers[op.name]
        if conv.kind != "conv" or "activation" in conv.values or not _pointwise(conv.values["conv"]):
            continue
        at, where = ops.index(op), next(i for i, other in enumerate(ops) if other.name == conv.name)
        ops[where] = replace(op, reads=(conv.name,), shape=conv.shape)
        ops[at] = replace(conv, reads=op.reads, shape=(*conv.shape[:2], *op_input(network, op)))
        for i in range(where + 1, len(ops)):
            ops[i] = replace(ops[i], reads=tuple(op.name if read == conv.name else read for read in ops[i].reads))
        network = _redirect(replace(network, ops=tuple(ops)), conv.name, op.name)
    return replace(network, ops=tuple(ops))


def op_input(network: FloatNetwork, op: FloatOp) -> tuple[int, ...]:
    """Height and width of what a resize reads."""
    factor = op.values["factor"]
    return tuple(size // factor for size in op.shape[2:])


REWRITES: tuple[Callable[[FloatNetwork, Mapping[str, tuple[int, ...]]], FloatNetwork], ...] = (
    drop_what_computes_nothing,
    known_factors,
    convolutions_by_their_parts,
    pad_in_the_convolution,
    fold_into_the_convolution_after,
    fold_batch_norm,
    slices_as_convolutions,
    activation_in_the_saturation,
    projection_before_resize,
)
"""In the order in which they are applied."""


def _bias(layer: Any) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()


def _factor(op: FloatOp) -> tuple[Tensor, Tensor]:
    if "module" not in op.values:
        return op.values["factor"], op.values["offset"]
    factor, offset = folded(op.values["module"])
    return factor.detach(), offset.detach()


def _per_channel(factor: Tensor, offset: Tensor) -> Convolution:
    """A depthwise 1x1."""
    return Convolution(factor.reshape(-1, 1, 1, 1).clone(), offset.clone(), groups=len(factor))


def _pointwise(conv: Convolution) -> bool:
    return conv.weight.shape[2:] == (1, 1) and conv.stride == (1, 1) and not any(conv.padding)


def _producers(network: FloatNetwork) -> dict[str, FloatOp]:
    return {op.name: op for op in network.ops}


def _readers(network: FloatNetwork) -> dict[str, list[FloatOp]]:
    readers: dict[str, list[FloatOp]] = {name: [] for name in (*network.inputs, *(op.name for op in network.ops))}
    for op in network.ops:
        for read in Counter(op.reads):
            readers[read].append(op)
    return readers


def _without(network: FloatNetwork, dropped: Callable[[FloatOp], bool]) -> FloatNetwork:
    """Without some steps of one input, whose readers read that input instead."""
    renamed: dict[str, str] = {}
    ops = []
    for op in network.ops:
        op = replace(op, reads=tuple(renamed.get(read, read) for read in op.reads))
        if dropped(op):
            renamed[op.name] = op.reads[0]
        else:
            ops.append(op)
    outputs = {name: renamed.get(tensor, tensor) for name, tensor in network.outputs.items()}
    if unwritten := [name for name, tensor in outputs.items() if tensor in network.inputs]:
        raise ReadError(f"the output `{unwritten[0]}` is an input: there is nothing to compute")
    return replace(network, ops=tuple(ops), outputs=outputs)


def _redirect(network: FloatNetwork, old: str, new: str) -> FloatNetwork:
    outputs = {name: new if tensor == old else tensor for name, tensor in network.outputs.items()}
    return replace(network, outputs=outputs)
