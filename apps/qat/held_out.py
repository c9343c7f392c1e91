"""Judges a student on held-out maps, which training never sees.

One half of the held-out maps chooses the best checkpoint of a run, in simulation; the other half, which chose
nothing, gives the figures at the end, with the integer function itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.qat.data import Batch, Source
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.qat import QATStage2

Student: TypeAlias = QATStage2 | QuantizedNetwork

PEAK_SHARE = 1e-3
"""The share of a teacher's outputs, the highest by magnitude, that `Figures.peak_sqnr_db` is taken over."""

_PART = 8  # maps run at once


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How near an integer function comes to the float teacher.

    Attributes:
        loss: what training minimises: noise over signal of every output, and the losses of the task and of its answer,
            each times its weight.
        sqnr_db: signal to quantisation noise of each output, by its name.
        peak_sqnr_db: the same where the teacher's output is highest (`PEAK_SHARE`). What a network
            looks for is often there, and an activation that is clipped is lost there first.
    """

    loss: float
    sqnr_db: Mapping[str, float]
    peak_sqnr_db: Mapping[str, float]


class Objective:
    """The loss of a student's outputs: noise over signal of each, and what task and answer add."""

    def __init__(self, source: Source, powers: Sequence[float], config: QatConfig) -> None:
        self._source, self._config = source, config
        self._powers = [power or 1.0 for power in powers]  # an output that is constantly zero has no power

    def __call__(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor], labels: Tensor | None) -> list[Tensor]:
        """Return scalars: the loss, then the noise over signal of each output."""
        noise = [(y - t).square().mean() / power for y, t, power in zip(outputs, wanted, self._powers, strict=True)]
        loss = torch.stack(noise).sum()
        if self._config.task_weight and labels is not None:
            loss = loss + self._config.task_weight * self._source.task_loss(outputs, labels)
        if self._config.answer_weight:
            loss = loss + self._config.answer_weight * self._source.answer_loss(outputs, wanted)
        return [loss, *noise]


class HeldOut:
    """The maps that training never sees, and what the teacher makes of them."""

    def __init__(self, source: Source, teacher: nn.Module, objective: Objective, device: torch.device) -> None:
        whole = source.held_out()
        self._choosing, self._judging = (_every_other(whole, start) for start in (0, 1))
        self._objective, self._device = objective, device
        self._wanted_choosing = run_in_parts(teacher, self._choosing.features.to(device))
        self._wanted = [y.cpu() for y in run_in_parts(teacher, self._judging.features.to(device))]

    def choosing_loss(self, student: Student, state: Mapping[str, Tensor]) -> float:
        """The loss of `student` with the weights and ranges of `state`, simulated, on the half that chooses."""
        probe = copy.deepcopy(student)
        probe.load_state_dict(state)
        outputs = run_in_parts(probe, self._choosing.features.to(self._device))
        with torch.no_grad():
            return float(self._objective(outputs, self._wanted_choosing, self._choosing.labels)[0])

    def figures(self, student: Student) -> Figures:
        """The figures of `student`'s integer function, by the golden evaluator, on the half that chose nothing."""
        function, _ = freeze(copy.deepcopy(student).cpu(), self._judging.features.shape)
        (name,) = function.inputs
        codes = golden.evaluate(function, function.quantization[name].quantize(as_real(self._judging.features).numpy()))
        named = {
            label: torch.from_numpy(function.quantization[tensor].dequantize(codes[label]))
            for label, tensor in function.outputs.items()
        }
        outputs = list(named.values())
        with torch.no_grad():
            loss = float(self._objective(outputs, self._wanted, self._judging.labels)[0])
        whole, peak = (
            {label: _sqnr_db(y, want, share) for (label, y), want in zip(named.items(), self._wanted, strict=True)}
            for share in (1.0, PEAK_SHARE)
        )
        return Figures(loss=loss, sqnr_db=whole, peak_sqnr_db=peak)


def output_tensors(outputs: Sequence[Tensor] | Mapping[str, Tensor]) -> list[Tensor]:
    """What a network returned, in order: a tuple, or tensors by name."""
    return list(outputs.values()) if isinstance(outputs, Mapping) else list(outputs)


def as_real(features: Tensor) -> Tensor:
    """What a float network takes: pixels uint8 as float32 in [0, 1], other features as they are."""
    return features.float() / 255 if features.dtype == torch.uint8 else features


@torch.no_grad()
def run_in_parts(model: nn.Module, features: Tensor) -> list[Tensor]:
    """Run `model` over whole maps, a few at once; returns each output, batch first."""
    parts = [output_tensors(model(part)) for part in features.split(_PART)]
    return [torch.cat(output) for output in zip(*parts, strict=True)]


def decibel(noise_over_signal: float) -> float:
    """Noise over signal as a signal to noise ratio in dB."""
    return -10 * math.log10(max(noise_over_signal, 1e-30))


def _sqnr_db(y: Tensor, wanted: Tensor, share: float) -> float:
    """SQNR over the `share` of the values where `wanted` is highest by magnitude."""
    count = max(1, round(share * wanted.numel()))
    places = wanted.abs().flatten().topk(count).indices if share < 1 else slice(None)
    want = wanted.flatten()[places].double()
    noise = y.flatten()[places].double() - want
    return decibel(float(noise.square().mean()) / (float(want.square().mean()) or 1.0))


def _every_other(batch: Batch, start: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[start::2]
    return Batch(batch.features[start::2], labels)
