"""A stem, Stage2 and two heads: the smallest network around Stage2 that finds a landmark."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.stage2 import ConvBNSiLU, Stage2
from litehrnet_stage2.runtime.program import Floats


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

    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """The same in numpy float32, in the order that `decoding.locate` takes."""
        heat, offset, real = (t.detach().float().cpu().numpy() for t in (self.heat, self.offset, self.real))
        return heat, offset, real


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

    def forward(self, image: Tensor) -> Prediction:
        """Map images `[B,3,H,W]` float in [0,1], `H` and `W` multiples of 8, to the answer."""
        prediction: Prediction = self.heads(*self.stage2(self.stem(image)))
        return prediction


def answers(
    predict: Callable[[Tensor], Prediction], batches: Iterable[tuple[npt.NDArray[np.uint8], Floats]]
) -> Iterator[tuple[tuple[Floats, Floats, Floats], Floats]]:
    """Run `predict` (images `[B,3,H,W]` in [0,1] -> `Prediction`) over whole scenes, as `task_metrics` wants it."""
    for images, shapes in batches:
        with torch.no_grad():
            yield predict(torch.from_numpy(np.array(images)).float() / 255).arrays(), np.asarray(shapes)


def _strided(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=2, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(),
    )
