"""The task's figures, from what the heads say of whole scenes. Numpy alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.apps.landmarks.decoding import locate, named_marker
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.program import Floats

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


def task_metrics(answers: Iterable[tuple[tuple[Floats, Floats, Floats], Floats]]) -> TaskMetrics:
    """Score the answers: pairs of (heat, offset, real), as `decoding.locate` takes them, and the scenes' shapes.

    Shapes are `[B,S,3]`, as in `Scene`.

    Raises:
        ValueError: there is no scene.
    """
    errors: list[npt.NDArray[np.float64]] = []
    right = total = 0
    for (heat, offset, real), shapes in answers:
        miss = locate(heat, offset, real).astype(np.float64) - shapes[:, 0, :2]
        errors.append(np.sqrt((miss**2).sum(1)))
        there = shapes[:, :, 2] >= 0
        right += int(((named_marker(real, shapes[:, :, :2]) == (shapes[:, :, 2] > 0.5)) & there).sum())
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
