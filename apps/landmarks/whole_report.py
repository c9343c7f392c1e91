"""The whole landmark network on held-out scenes: float, post-training int8, tuned int8, and the tuned in runtimes."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from litehrnet_stage2.apps import evaluation
from litehrnet_stage2.apps.convert_network import convert_network
from litehrnet_stage2.apps.evaluation import Inputs, Outputs, Row
from litehrnet_stage2.apps.landmarks.metrics import task_metrics
from litehrnet_stage2.apps.landmarks.pool import Pool, batches
from litehrnet_stage2.apps.landmarks.weight_files import load_whole, quantized_network
from litehrnet_stage2.runtime.program import Floats

OUTPUTS = ("heat", "offset", "real")
_BATCH = 10


def compare_whole(
    folder: Path, held_out: Pool, calibration: Pool, *, targets: Mapping[str, str], sqnr_scenes: int
) -> tuple[Row, ...]:
    """Evaluate the weights in `folder` on `held_out`.

    Args:
        folder: as the shipped one.
        held_out: scenes that training never saw.
        calibration: scenes that the post-training form takes its ranges from.
        targets: runtimes to evaluate the tuned network in, and the artifact that each opens.
        sqnr_scenes: on so many of the first scenes are the signal to noise ratios taken.
    """
    teacher, tuned = quantized_network(folder), load_whole(folder)
    plain = quantized_network(folder).calibrate(torch.from_numpy(np.array(calibration.images)))

    @torch.no_grad()
    def float_network(inputs: Inputs) -> Outputs:
        assert not isinstance(inputs, tuple)
        found = teacher(torch.from_numpy(inputs))
        return tuple(found[name].numpy() for name in OUTPUTS)

    networks: dict[str, nn.Module | Path | evaluation.Predict] = {
        "float": float_network,
        "int8, post-training": plain,
        "int8, QAT": tuned,
    }
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "bundle"
        if targets:
            images = np.array(held_out.images[:1])
            convert_network(tuned, bundle, images, teacher=teacher, targets=list(targets.values()))
        return evaluation.evaluate(
            networks | ({"QAT bundle": bundle} if targets else {}),
            Images(held_out),
            _metric,
            runtimes=list(targets),
            sqnr_inputs=sqnr_scenes,
        )


class Images:
    """A pool's scenes as images float32 in [0, 1], with their shapes; can be gone through any number of times."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def __iter__(self) -> Iterator[tuple[Floats, Floats]]:
        for images, shapes in batches(self._pool, batch=_BATCH):
            yield np.array(images).astype(np.float32) / np.float32(255), shapes


def _metric(answers: Iterable[tuple[Sequence[Floats], Any]]) -> Mapping[str, float]:
    return dataclasses.asdict(
        task_metrics(((heat[:, 0], offset, real[:, 0]), shapes) for (heat, offset, real), shapes in answers)
    )
