"""Decodes what the heads give, in numpy alone: where the centre is, and which shape is the marker.

A device that runs the network has no torch; this is all that it needs besides a runtime.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.runtime.program import Floats

STRIDE_PX = 4  # of the heat and the offset; the kind has twice it

DECOY_LOGIT = -4.0
"""Where the kind head is below it, it has no doubt; away from all shapes it stays near 0."""

DECOY_REACH_CELLS = 2
"""Of the kind head: two decoys are further apart than this."""


def locate(heat: Floats, offset: Floats, real: Floats) -> Floats:
    """Find the centres float32 `[B,2]` (x, y in px), where the heat and the kind together are highest.

    The centre is what the best cell and its eight neighbours say of it, each weighted by its heat.

    Args:
        heat: `[B,H/4,W/4]` logits: the marker's centre lies in or near this cell.
        offset: `[B,2,H/4,W/4]` x and y from the cell's middle to the centre, in cells.
        real: `[B,H/8,W/8]` logits: the shape here is the marker and no decoy.
    """
    batch, height, width = heat.shape
    evidence = _log_sigmoid(heat) + _log_sigmoid(_upsample2x(real))
    best = evidence.reshape(batch, -1).argmax(1)
    steps = np.array([-1, 0, 1])
    rows = (best // width)[:, None] + np.repeat(steps, 3)
    columns = (best % width)[:, None] + np.tile(steps, 3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    image = np.arange(batch)[:, None]
    weights = np.where(inside, np.exp(heat[image, rows, columns] - heat[image, rows, columns].max(1, keepdims=True)), 0)
    weights /= weights.sum(1, keepdims=True)
    cells = np.stack([columns, rows], axis=-1) + np.float32(0.5) + offset[image, :, rows, columns]
    centres: Floats = (STRIDE_PX * (weights[..., None] * cells).sum(1)).astype(np.float32)
    return centres


def named_marker(real: Floats, points: Floats) -> npt.NDArray[np.bool_]:
    """Say for each of the points `[B,S,2]` (x, y in px) whether the kind head takes what is there for the marker.

    Returns `[B,S]`; false means a decoy.
    """
    _, height, width = real.shape
    cells = (points / (2 * STRIDE_PX)).astype(np.int64)
    image = np.arange(len(points))[:, None]
    named: npt.NDArray[np.bool_] = real[image, cells[..., 1].clip(0, height - 1), cells[..., 0].clip(0, width - 1)] > 0
    return named


def find_decoys(real: Floats) -> Floats:
    """Find the shapes of one image that the kind head `[H/8,W/8]` takes for decoys: centres `[N,2]` (x, y in px).

    The surest cell comes first, and takes those around it with it; the centre is the mean of its neighbourhood,
    weighted by how sure the head is.
    """
    height, width = real.shape
    kept: list[tuple[int, int]] = []
    for cell in np.argsort(real, axis=None, kind="stable"):
        row, column = divmod(int(cell), width)
        if real[row, column] >= DECOY_LOGIT:
            break
        if all(max(abs(row - r), abs(column - c)) > DECOY_REACH_CELLS for r, c in kept):
            kept.append((row, column))
    centres = np.empty((len(kept), 2), np.float32)
    for i, (row, column) in enumerate(kept):
        rows = np.arange(max(0, row - 1), min(height, row + 2))
        columns = np.arange(max(0, column - 1), min(width, column + 2))
        weights = np.maximum(-real[np.ix_(rows, columns)], 0)
        cell_x, cell_y = (columns + 0.5) @ weights.sum(0), (rows + 0.5) @ weights.sum(1)
        centres[i] = 2 * STRIDE_PX * np.array([cell_x, cell_y]) / weights.sum()
    return centres


def _log_sigmoid(x: Floats) -> Floats:
    y: Floats = np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
    return y


def _upsample2x(x: Floats) -> Floats:
    """Bilinear x2 of `[B,H,W]` with half-pixel centres and clamped edges."""
    for axis in (1, 2):
        last = x.shape[axis] - 1
        before = x.take(np.maximum(np.arange(last + 1) - 1, 0), axis)
        after = x.take(np.minimum(np.arange(last + 1) + 1, last), axis)
        pair = np.stack([x * 0.75 + before * 0.25, x * 0.75 + after * 0.25], axis=axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * (last + 1), *x.shape[axis + 1 :]).astype(np.float32)
    return x
