"""A stem, Stage2 and two heads: the smallest network around Stage2 that finds a landmark."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.stage2 import ConvBNSiLU, Stage2

STRIDE_PX = 4  # of Y1; Y2 has twice it


@dataclass(frozen=True)
class Prediction:
    """What the heads say. `B` images of `H` by `W` px.

    Attributes:
        heat: `[B,H/4,W/4]` logits: the marker's centre lies in or near this cell.
        offset: `[B,2,H/4,W/4]` x and y from the cell's middle to the centre, in cells.
        real: `[B,H/8,W/8]` logits: the shape here is the marker and no decoy.
    """

    heat: Tensor
    offset: Tensor
    real: Tensor


class Stem(nn.Sequential):
    """Images `[B,3,H,W]` float in [0,1] -> features `[B,32,H/4,W/4]`: as a stage 1 would hand over."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                first=_strided(3, 16, kernel_size=5),
                second=_strided(16, 32, kernel_size=3),
                third=ConvBNSiLU(32, 32, kernel_size=3),
            )
        )


class Heads(nn.Module):
    """`Y1 [B,32,h,w]` and `Y2 [B,64,h/2,w/2]` -> `Prediction`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = ConvBNSiLU(32, 32, kernel_size=3)
        self.centre = nn.Conv2d(32, 3, kernel_size=1)
        self.kind = nn.Sequential(ConvBNSiLU(64, 32, kernel_size=1), nn.Conv2d(32, 1, kernel_size=1))
        assert self.centre.bias is not None
        nn.init.constant_(self.centre.bias[:1], -4.0)  # few cells hold a centre: start there

    def forward(self, y1: Tensor, y2: Tensor) -> Prediction:
        """Read the centre from Y1 and its kind from Y2."""
        centre = self.centre(self.trunk(y1))
        return Prediction(heat=centre[:, 0], offset=centre[:, 1:], real=self.kind(y2)[:, 0])


class LandmarkNet(nn.Module):
    """The three parts in a row. `stage2` may be the float module or its quantisation-aware form."""

    def __init__(self, stage2: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = Stem()
        self.stage2 = stage2 or Stage2()
        self.heads = Heads()

    def forward(self, images: Tensor) -> Prediction:
        """Images `[B,3,H,W]` float in [0,1], `H` and `W` multiples of 8."""
        prediction: Prediction = self.heads(*self.stage2(self.stem(images)))
        return prediction


def locate(prediction: Prediction) -> Tensor:
    """Centres `[B,2]` (x, y in px), where the heat and the kind together are highest.

    The centre is what the best cell and its eight neighbours say of it, each weighted by its heat.
    """
    batch, height, width = prediction.heat.shape
    kind = F.interpolate(prediction.real[:, None].float(), size=(height, width), mode="bilinear")[:, 0]
    evidence = F.logsigmoid(prediction.heat.float()) + F.logsigmoid(kind)
    best = evidence.flatten(1).argmax(1)
    steps = torch.tensor([-1, 0, 1], device=best.device)
    rows = (best // width)[:, None] + steps.repeat_interleave(3)
    columns = (best % width)[:, None] + steps.repeat(3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    image = torch.arange(batch, device=best.device)[:, None]
    weights = F.softmax(prediction.heat[image, rows, columns].float().masked_fill(~inside, -torch.inf), dim=1)
    cells = torch.stack([columns, rows], dim=-1) + 0.5 + prediction.offset[image, :, rows, columns].float()
    return STRIDE_PX * (weights[..., None] * cells).sum(1)


def _strided(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=2, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(),
    )
