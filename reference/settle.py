"""Settling: every scale on which runtimes could disagree is moved, as little as it takes, until they provably do not.

Nothing is sampled: each check tries all codes under every runtime's rule. A scale that moves voids what was
proved of its other readers, so everything is checked again until nothing moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.operators import Check, Conv, Operator
from litehrnet_stage2.reference.operators.conv import LEAST_MULTIPLIER
from litehrnet_stage2.reference.quantization import Quantization

SCALE_STEP = 2.0**-19  # 1.9e-6, relative: what a nudge moves a scale by
MOST_NUDGES = 4096
ROOM = 1.01  # a scale that is raised to a kernel's bound keeps away from it, by more than all nudges
LARGEST_BIAS = 2**22  # what comes back from float32 as the same integer, however a converter divides
WEIGHT_QMAX = 127


class FreezeError(InputError):
    """The network cannot be frozen so that every runtime computes the same codes."""


@dataclass(frozen=True, kw_only=True)
class FloatConv:
    """A convolution whose int8 weights are not made yet: they depend on scales that may still move.

    Attributes:
        conv: everything but weight, weight scale and bias, which are placeholders.
        weight: float64 `[O, I/groups, kh, kw]`.
        weight_scale: float32 `[O]`, what the weights ask for.
        bias: float64 `[O]`.
    """

    conv: Conv
    weight: NDArray[np.float64]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.float64]

    def quantized(self, read: Quantization, out: Quantization) -> Conv:
        """The convolution in codes.

        A channel that is nearly all bias (a pruned one) takes a coarser grid, so that its bias fits; so does one
        whose weights are minute beside what the convolution gives.
        """
        finest = (np.abs(self.bias) / (float(read.scale) * LARGEST_BIAS)).astype(np.float32)
        least = np.float32(float(out.scale) * LEAST_MULTIPLIER * ROOM / float(read.scale))
        scale = np.maximum(np.maximum(self.weight_scale, finest), least)
        codes = np.clip(np.rint(self.weight / scale[:, None, None, None]), -WEIGHT_QMAX, WEIGHT_QMAX)
        grid = read.scale * scale  # float32
        bias = np.rint(self.bias / grid).astype(np.int32)
        return replace(self.conv, weight=codes.astype(np.int8), weight_scale=scale, bias=bias)


@dataclass(frozen=True)
class Settled:
    """The nodes in codes, the quantisation of every tensor, and by how much each scale that moved did."""

    nodes: tuple[Operator, ...]
    quantization: Mapping[str, Quantization]
    nudges: Mapping[str, float]
    raised: Mapping[str, float]


def settle(
    drafts: Sequence[Operator | FloatConv], quantization: Mapping[str, Quantization], pinned: Collection[str] = ()
) -> Settled:
    """Move scales until every check holds; the tensors `pinned` keep theirs.

    Raises:
        FreezeError: no scale near the calibrated one makes the runtimes agree.
    """
    settling = _Settling(drafts, dict(quantization), frozenset(pinned))
    settling.raise_scales()
    settling.nudge_scales()
    return Settled(
        nodes=tuple(settling.operator(draft) for draft in drafts),
        quantization=settling.quantization,
        nudges=settling.nudges,
        raised=settling.raised,
    )


class _Settling:
    def __init__(
        self, drafts: Sequence[Operator | FloatConv], quantization: dict[str, Quantization], pinned: frozenset[str]
    ) -> None:
        self.drafts = drafts
        self.quantization = quantization
        self.pinned = pinned
        self.nudges: dict[str, float] = {}
        self.raised: dict[str, float] = {}
        self._groups = tied_groups([_node(draft) for draft in drafts], quantization)
        self._verdicts: dict[tuple[int, tuple[Quantization, ...]], Check | None] = {}

    def operator(self, draft: Operator | FloatConv) -> Operator:
        """The node in codes, with the scales as they are."""
        if isinstance(draft, FloatConv):
            return draft.quantized(self.quantization[draft.conv.input], self.quantization[draft.conv.name])
        return draft

    def raise_scales(self) -> None:
        """Raise each scale to the least that every runtime's kernels take."""
        for _ in range(len(self.drafts) + 1):
            before = dict(self.quantization)
            for draft in self.drafts:
                node = self.operator(draft)
                reads, out = self._around(node)
                for name, least in node.least_scales(reads, out):
                    scale = self.quantization[name].scale
                    if scale < least:
                        self._move(name, np.float32(least * ROOM))
                        self.raised[name] = least * ROOM / float(scale)
            if self.quantization == before:
                return
        raise FreezeError("the scales of this network's tensors differ by more than any runtime's kernels can bridge")

    def nudge_scales(self) -> None:
        """Move each scale on which a check fails, one step farther each time; then check everything again."""
        start, steps = dict(self.quantization), Counter[str]()
        while check := next(filter(None, map(self._first_failing, range(len(self.drafts)))), None):
            group = self._groups[check.moves]
            steps[group[0]] += 1
            moved = self._pinned(group)
            if steps[group[0]] >= 2 * MOST_NUDGES - 1 or moved:
                why = f", and `{moved}` is an input that cannot move" if moved else "; calibrate on other data"
                raise FreezeError(f"scale of `{check.moves}` (={start[check.moves].scale}): {check.otherwise}{why}")
            scale = start[check.moves].scale
            candidate = np.float32(scale * _nudge(steps[group[0]]))
            self._move(check.moves, candidate)
            for name in group:
                self.nudges[name] = float(candidate) / float(scale) - 1

    def _first_failing(self, index: int) -> Check | None:
        draft = self.drafts[index]
        node = _node(draft)
        reads, out = self._around(node)
        key = (index, (*reads, out))
        if key not in self._verdicts:
            checks = self.operator(draft).checks(reads, out)
            self._verdicts[key] = next((check for check in checks if not check.holds()), None)
        return self._verdicts[key]

    def _around(self, node: Operator) -> tuple[list[Quantization], Quantization]:
        return [self.quantization[name] for name in node.inputs], self.quantization[node.name]

    def _move(self, tensor: str, scale: np.float32) -> None:
        for name in self._groups[tensor]:
            self.quantization[name] = Quantization(scale, self.quantization[name].zero_point)

    def _pinned(self, group: Sequence[str]) -> str | None:
        return next((name for name in group if name in self.pinned), None)


def tied_groups(nodes: Sequence[Operator], tensors: Collection[str]) -> dict[str, list[str]]:
    """By tensor, all that share its quantisation because a node moves codes between them, itself included."""
    groups = {name: [name] for name in tensors}
    for node in nodes:
        if node.moves_codes:
            for name in node.inputs:
                one, other = groups[name], groups[node.name]
                if one is not other:
                    one += other
                    groups.update(dict.fromkeys(other, one))
    return groups


def _node(draft: Operator | FloatConv) -> Operator:
    return draft.conv if isinstance(draft, FloatConv) else draft


def _nudge(step: int) -> float:
    """1, a step more, a step less, two more, two less..."""
    distance = (step + 1) // 2 * SCALE_STEP
    return 1 + distance if step % 2 else 1 - distance
