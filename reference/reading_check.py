"""A network as it was read is run beside the module itself: what reading misunderstood, the outputs show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.float_network import ReadError
from litehrnet_stage2.reference.tracing import evaluating

LEAST_DB = 60.0
"""Signal to noise that float32 leaves between two orders of the same sums, and that another network does not reach."""


def check_same(module: nn.Module, read: Callable[..., Mapping[str, Tensor]], examples: Mapping[str, Tensor]) -> None:
    """Compare the float outputs for the first example, float32 `[N, C, H, W]` by the names of the inputs.

    Raises:
        ReadError: an output is another.
    """
    one = [x[:1] for x in examples.values()]
    with evaluating(module), torch.no_grad():
        due, found = _tensors(module(*one)), read(*one)
    for (name, y), wanted in zip(found.items(), due, strict=True):
        noise = float((y.reshape(wanted.shape) - wanted).double().square().sum())
        power = float(wanted.double().square().sum())
        if not noise <= power * 10 ** (-LEAST_DB / 10):
            raise ReadError(
                f"`{name}` is not what `{type(module).__name__}` computes in eval() when it is read step by step: "
                "look for a step that is random, or that changes a tensor through a view of it"
            )


def _tensors(result: Any) -> list[Tensor]:
    """What a network returned, in order."""
    if isinstance(result, Tensor):
        return [result]
    if dataclasses.is_dataclass(result):
        return [getattr(result, field.name) for field in dataclasses.fields(result)]
    return list(result.values() if isinstance(result, Mapping) else result)
