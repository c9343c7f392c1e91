"""Compares inputs with those that a network was trained on, as its first BatchNorms remember them.

Inputs of another scale, normalisation or order of channels calibrate without an error, and every runtime then agrees
on a useless function. The mean and the spread of what enters the first BatchNorms give them away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.upstream.torch_2_13 import AnyBatchNorm

MOST_SHIFT = 0.4
"""On right inputs the mean was off by 0.17 sigma on 16 images and 0.24 on 3; on wrong ones by 0.58 and more."""
MOST_RATIO = 2.0
"""On right inputs the spread was off by a factor of 1.3 on 16 images and 1.5 on one."""

_PART = 8  # inputs run at once


@dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """What enters one of the first BatchNorms, beside what it saw in training.

    Attributes:
        module: name of the BatchNorm.
        mean_shift: how far the means of the channels lie from the running means, in running standard deviations:
            root mean square over the channels.
        std_ratio: standard deviation over the running one: geometric mean over the channels.
    """

    module: str
    mean_shift: float
    std_ratio: float

    @property
    def usual(self) -> bool:
        """Whether inputs as in training could look like this."""
        return self.mean_shift <= MOST_SHIFT and 1 / MOST_RATIO <= self.std_ratio <= MOST_RATIO


@torch.no_grad()
def input_statistics(network: nn.Module, inputs: Tensor) -> tuple[InputStatistics, ...]:
    """Compare what `inputs` (batch first) make of every BatchNorm that has no other before it.

    A network without BatchNorm, or with it folded, has nothing to compare with: the result is empty.
    """
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, AnyBatchNorm) and module.running_mean is not None
    }
    first = _first(network, norms, inputs[:1])
    sums = {name: torch.zeros(3, norms[name].num_features, dtype=torch.float64) for name in first}

    def add(name: str, x: Tensor) -> None:
        values = x.detach().double().cpu().transpose(0, 1).flatten(1)
        sums[name] += torch.stack([torch.full((len(values),), values.shape[1]), values.sum(1), values.square().sum(1)])

    _watched(network, {name: norms[name] for name in first}, add, inputs)
    found = []
    for name, (count, total, squares) in sums.items():
        norm = norms[name]
        mean, wanted = total / count, cast(Tensor, norm.running_mean).double().cpu()
        variance = (squares / count - mean.square()).clamp_min(0) + norm.eps
        wanted_variance = cast(Tensor, norm.running_var).double().cpu() + norm.eps
        shift = ((mean - wanted).square() / wanted_variance).mean().sqrt()
        ratio = (0.5 * (variance / wanted_variance).log()).mean().exp()
        found.append(InputStatistics(module=name, mean_shift=float(shift), std_ratio=float(ratio)))
    return tuple(found)


def unusual_inputs(statistics: tuple[InputStatistics, ...]) -> str | None:
    """A warning that names the BatchNorm that is farthest off, or None if all is as in training."""
    unusual = [s for s in statistics if not s.usual]
    if not unusual:
        return None
    worst = max(unusual, key=lambda s: s.mean_shift)
    return (
        f"these inputs do not look like those that the network was trained on: what enters `{worst.module}` is off by "
        f"{worst.mean_shift:.2g} standard deviations in the mean and by a factor of {worst.std_ratio:.2g} in the "
        f"spread (usual are at most {MOST_SHIFT:g}, and {1 / MOST_RATIO:g} to {MOST_RATIO:g}). Check their scale, "
        "normalisation and order of channels."
    )


def _first(network: nn.Module, norms: dict[str, AnyBatchNorm], one: Tensor) -> list[str]:
    """The BatchNorms that no other one's output reaches: each is made to put out NaN, and who receives it is not."""
    reached: set[str] = set()

    def look(name: str, x: Tensor) -> None:
        if not torch.isfinite(x).all():
            reached.add(name)

    poison = [
        norm.register_forward_hook(lambda _, __, y: torch.full_like(y, torch.nan), prepend=True)
        for norm in norms.values()
    ]
    try:
        _watched(network, norms, look, one)
    finally:
        for handle in poison:
            handle.remove()
    return [name for name in norms if name not in reached]


def _watched(
    network: nn.Module, norms: dict[str, AnyBatchNorm], tell: Callable[[str, Tensor], None], inputs: Tensor
) -> None:
    """Run `network` in eval mode over `inputs`, and tell what enters each of `norms`; it is left as it was."""
    handles = [norm.register_forward_pre_hook(lambda _, x, name=name: tell(name, x[0])) for name, norm in norms.items()]
    training = {module: module.training for module in network.modules()}
    try:
        network.eval()
        for part in inputs.split(_PART):
            network(part)
    finally:
        for module, was in training.items():
            module.training = was
        for handle in handles:
            handle.remove()
