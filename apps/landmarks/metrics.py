"""The task's figures, from located centres and the kind head."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from litehrnet_stage2.apps.landmarks.network import STRIDE_PX, Prediction, locate
from litehrnet_stage2.reference.errors import InputError

DETECTED_WITHIN_PX = 8.0


@dataclass(frozen=True)
class TaskMetrics:
    """Figures over held-out scenes. Shares are of 1; errors are those of the detected, in input pixels.

    Attributes:
        scenes: how many there were.
        detection: share with the centre found within 8 px of the true one.
        within_2px: share of all scenes with the centre within 2 px.
        decoy_accuracy: share of all shapes, markers and decoys, whose kind the Y2 head names rightly.
    """

    scenes: int
    detection: float
    error_mean_px: float
    error_median_px: float
    error_p95_px: float
    within_2px: float
    decoy_accuracy: float


def evaluate(
    predict: Callable[[Tensor], Prediction],
    batches: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]],
) -> TaskMetrics:
    """Run `predict` (images `[B,3,H,W]` in [0,1] -> `Prediction`) over whole scenes and score it.

    Raises:
        ValueError: there is no scene.
    """
    errors: list[npt.NDArray[np.float64]] = []
    right = total = 0
    for images, rows in batches:
        shapes = torch.from_numpy(np.array(rows))
        with torch.no_grad():
            prediction = predict(torch.from_numpy(np.array(images)).float() / 255)
        miss = locate(prediction).double() - shapes[:, 0, :2]
        errors.append(miss.square().sum(1).sqrt().numpy())
        cells = (shapes[:, :, :2] / (2 * STRIDE_PX)).long()
        image = torch.arange(len(shapes))[:, None]
        named_real = prediction.real[image, cells[:, :, 1].clamp(min=0), cells[:, :, 0].clamp(min=0)] > 0
        there = shapes[:, :, 2] >= 0
        right += int(((named_real == (shapes[:, :, 2] > 0.5)) & there).sum())
        total += int(there.sum())
    if not errors:
        raise InputError("no scene to evaluate: pass at least one batch")
    error = np.concatenate(errors)
    found = error[error <= DETECTED_WITHIN_PX]
    mean, median, p95 = (found.mean(), np.median(found), np.percentile(found, 95)) if len(found) else (np.nan,) * 3
    return TaskMetrics(
        scenes=len(error),
        detection=float(len(found) / len(error)),
        error_mean_px=float(mean),
        error_median_px=float(median),
        error_p95_px=float(p95),
        within_2px=float((error <= 2).mean()),
        decoy_accuracy=right / total,
    )
