"""Sets the ranges of a student's activations, before it is tuned or converted."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.leaves import QuantAdd, QuantConv, QuantSiLU
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.qat import QATStage2, QuantConvSiLU
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, set_mode

_SAMPLE = 20_000  # values taken of each tensor and batch; quantiles of 1e-4 need no more


def calibrate(student: QATStage2 | QuantizedNetwork, features: Tensor, *, quantile: float, silu_floor: float) -> None:
    """Set every range of `student` from float `features` `[n,C,H,W]` or images, and let it fake-quantise from then on.

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


def raise_floors(student: nn.Module, silu_floor: float) -> None:
    """Start no range of what only SiLUs read below `silu_floor`, in units of the activation.

    SiLU is nearly zero there (-0.03 at -5), so codes spent on lower values are lost to the others.
    """
    for quantizer in _before_silu(student):
        if float(quantizer.low) < silu_floor:
            quantizer.set_range(silu_floor, float(quantizer.high))


def _before_silu(student: nn.Module) -> list[ActivationQuantizer]:
    """The quantisers of what a convolution or an addition writes for SiLUs alone."""
    if not isinstance(student, QuantizedNetwork):
        units = [module for module in student.modules() if isinstance(module, QuantConvSiLU)]
        return [unit.conv.output for unit in units if isinstance(unit.conv, QuantConv)]
    found, others = [], {id(student.quantizer(name)) for name in student.input_names}
    owners = {step.name: student.get_submodule(step.name) for step in student.run_order}
    for name, leaf in owners.items():
        readers = [owners[step.name] for step in student.run_order if name in step.reads]
        for_silu = readers and all(isinstance(reader, QuantSiLU) for reader in readers)
        if for_silu and name not in student.output_tensors.values() and isinstance(leaf, QuantConv | QuantAdd):
            found.append(leaf.output)
        else:  # a range that is shared with these stays too
            others.add(id(leaf.output))
    return [quantizer for quantizer in found if id(quantizer) not in others]


def _calibrate_to_quantile(student: QATStage2 | QuantizedNetwork, features: Tensor, quantile: float) -> None:
    fixed = {student.quantizer(name) for name in student.pixels} if isinstance(student, QuantizedNetwork) else set()
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
        if module in fixed:
            continue
        module.set_range(float(values[round((1 - quantile) * last)]), float(values[round(quantile * last)]))
    set_mode(student, Mode.FAKE_QUANTIZE)
