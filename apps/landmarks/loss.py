"""The loss of the example task: a penalty-reduced focal loss on the heat, L1 on the offset, BCE on the kind.

The focal loss is that of CornerNet (Law and Deng, 2018): cells near the centre count less as negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from litehrnet_stage2.apps.landmarks.decoding import STRIDE_PX
from litehrnet_stage2.apps.landmarks.landmark_net import Prediction

_HEAT_SIGMA_CELLS = 0.8
_OFFSET_REACH_CELLS = 1.6
_KIND_REACH_CELLS = 1.1  # in cells of Y2, 8 px
_OFFSET_WEIGHT = 1.0
_KIND_WEIGHT = 0.5


def task_loss(prediction: Prediction, shapes: Tensor) -> Tensor:
    """The scalar loss.

    Args:
        prediction: of `B` images.
        shapes: `[B,S,3]`, rows of x, y in px and kind: 1 the marker (row 0 or nowhere), 0 a decoy, -1 none.
    """
    _, height, width = prediction.heat.shape
    markers = shapes[:, 0]
    present = (markers[:, 2] > 0.5)[:, None, None]
    dx, dy = _from_cells(markers[:, None], height, width, STRIDE_PX)
    dx, dy = dx[:, 0], dy[:, 0]  # [B,h,w], in cells
    squared = dx.square() + dy.square()
    target = torch.exp(-squared / (2 * _HEAT_SIGMA_CELLS**2)) * present
    positive = (torch.maximum(dx.abs(), dy.abs()) <= 0.5) & present

    heat = prediction.heat.float()
    p = torch.sigmoid(heat)
    pull = F.softplus(-heat) * (1 - p).square() * positive
    push = F.softplus(heat) * p.square() * (1 - target).pow(4) * ~positive
    count = present.sum().clamp(min=1)
    focal = (pull.sum() + push.sum()) / count

    near = (squared <= _OFFSET_REACH_CELLS**2) & present
    offset = prediction.offset.float()
    distance = F.smooth_l1_loss(offset, torch.stack([dx, dy], 1), beta=0.1, reduction="none").sum(1)
    weight = target * near
    offset_loss = (distance * weight).sum() / weight.sum().clamp(min=1e-3)

    kx, ky = _from_cells(shapes, height // 2, width // 2, 2 * STRIDE_PX)  # [B,S,h/2,w/2]
    here = (kx.square() + ky.square() <= _KIND_REACH_CELLS**2) & (shapes[:, :, 2] >= 0)[:, :, None, None]
    logits = prediction.real.float()[:, None].expand_as(kx)
    kinds = shapes[:, :, 2].clamp(min=0)[:, :, None, None].expand_as(kx)
    kind_loss = F.binary_cross_entropy_with_logits(logits, kinds, reduction="none")
    kind = (kind_loss * here).sum() / here.sum().clamp(min=1)
    return focal + _OFFSET_WEIGHT * offset_loss + _KIND_WEIGHT * kind


def answer_loss(prediction: Prediction, wanted: Prediction) -> Tensor:
    """How far the offsets are from those of `wanted` where the centre is read.

    A scalar in cells squared, a mean over the `B` images of both. Each cell counts as much as `wanted` takes it for the
    centre.
    """
    heat = wanted.heat.float()
    share = torch.softmax(heat.flatten(1), dim=1).view_as(heat)
    distance = (prediction.offset - wanted.offset).float().square().sum(1)
    return (distance * share).sum() / len(heat)


def _from_cells(points: Tensor, height: int, width: int, stride_px: int) -> tuple[Tensor, Tensor]:
    """From each cell's middle to each point, in cells: two `[B,S,height,width]`."""
    columns = torch.arange(width, device=points.device) + 0.5
    rows = torch.arange(height, device=points.device) + 0.5
    x, y = points[:, :, 0, None, None] / stride_px, points[:, :, 1, None, None] / stride_px
    dx, dy = x - columns[None, None, None, :], y - rows[None, None, :, None]
    return dx.expand(*dx.shape[:2], height, width), dy.expand(*dy.shape[:2], height, width)
