"""Ranges: where a quantiser's starts, and how moving averages of what it sees carry it on."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.qat.ranks import Ranks
from litehrnet_stage2.reference.qat import QATStage2, QuantConv, QuantConvSiLU
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, set_mode

_SAMPLE = 20_000  # values taken of each tensor and batch; quantiles of 1e-4 need no more


def calibrate(student: QATStage2, features: Tensor, *, quantile: float, silu_floor: float) -> None:
    """Set every range of `student` from float `features` `[n,C,H,W]`, and let it fake-quantise from then on.

    Args:
        student: changed in place.
        features: whole maps.
        quantile: 1 covers all that was seen; 0.9999 cuts 1 value in 10,000 at each end.
        silu_floor: see `raise_floors`.
    """
    if quantile == 1:
        student.calibrate(features)
    else:
        _calibrate_to_quantile(student, features, quantile)
    raise_floors(student, silu_floor)


def raise_floors(student: QATStage2, silu_floor: float) -> None:
    """Start no range of what enters a SiLU below `silu_floor`, in units of the activation.

    SiLU is nearly zero there (-0.03 at -5), so codes spent on lower values are lost to the others.
    """
    for quantizer, floor in _floors(student, silu_floor).items():
        if float(quantizer.low) < floor:
            quantizer.set_range(floor, float(quantizer.high))


class MovingRanges:
    """Moving averages of every tensor's extremes, over all ranks, taken before the tensor is rounded with them.

    Args:
        student: its quantisers are followed until `stop`.
        momentum: weight of the newest batch.
        silu_floor: see `raise_floors`.
        ranks: who shares a batch.
    """

    def __init__(self, student: QATStage2, *, momentum: float, silu_floor: float, ranks: Ranks) -> None:
        self._momentum, self._ranks = momentum, ranks
        self._floors = _floors(student, silu_floor)
        self._handles = [q.register_forward_pre_hook(self._observe) for q in self._floors]

    def stop(self) -> None:
        """Leave the ranges as they are from now on."""
        for handle in self._handles:
            handle.remove()

    def _observe(self, quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(quantizer, ActivationQuantizer)
        lowest, highest = torch.aminmax(inputs[0].detach())
        extremes = self._ranks.highest(torch.stack([-lowest, highest]))
        if not torch.isfinite(extremes).all():
            return  # the loss will not be finite either, and that stops the run
        low, high = torch.lerp(torch.stack([-quantizer.low, quantizer.high]), extremes, self._momentum).tolist()
        quantizer.set_range(max(-low, self._floors[quantizer]), high)


def _floors(student: QATStage2, silu_floor: float) -> dict[ActivationQuantizer, float]:
    """For every quantiser, how low its range may start."""
    floors = {module: -torch.inf for module in student.modules() if isinstance(module, ActivationQuantizer)}
    for module in student.modules():
        if isinstance(module, QuantConvSiLU):
            assert isinstance(module.conv, QuantConv)
            floors[module.conv.output] = silu_floor
    return floors


def _calibrate_to_quantile(student: QATStage2, features: Tensor, quantile: float) -> None:
    seen: defaultdict[ActivationQuantizer, list[Tensor]] = defaultdict(list)

    def sample(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, ActivationQuantizer)
        flat = inputs[0].detach().flatten()
        seen[module].append(flat[:: max(1, flat.numel() // _SAMPLE)])

    quantizers = [module for module in student.modules() if isinstance(module, ActivationQuantizer)]
    handles = [module.register_forward_pre_hook(sample) for module in quantizers]
    try:
        set_mode(student, Mode.FLOAT)
        with torch.no_grad():
            for batch in features.split(8):
                student(batch)
    finally:
        for handle in handles:
            handle.remove()
    for module, parts in seen.items():
        values = torch.cat(parts).sort().values
        last = len(values) - 1
        module.set_range(float(values[round((1 - quantile) * last)]), float(values[round(quantile * last)]))
    set_mode(student, Mode.FAKE_QUANTIZE)
