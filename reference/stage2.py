"""Stage2 in float, step by step as the specification's table has it.

Names follow HRNet: `transition`, `branches`, `fuse_layers[i][j]` (into branch i, from branch j).
Shapes in comments are the specification's, for a 256x512 image; any even height and width will do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.state import check_weights, plain_names, unwrapped


class Stage2(nn.Module):
    """Two branches, 1/4 and 1/8, fused once.

    Shapes: features `[B, in_channels, H, W]` float -> `Y1 [B, C1, H, W]`, `Y2 [B, C2, H/2, W/2]`.

    Raises:
        ValueError: the features have a wrong rank, channel count or an odd size.
    """

    def __init__(self, config: Stage2Config | None = None) -> None:
        super().__init__()
        if not (config is None or isinstance(config, Stage2Config)):
            raise InputError(
                f"{type(self).__name__} takes a Stage2Config, but was given {config!r}: "
                f"write {type(self).__name__}(Stage2Config(in_channels=32))"
            )
        self.config = config or Stage2Config()
        c0, (c1, c2) = self.config.in_channels, self.config.num_channels
        expansion = self.config.expansion

        self.transition = nn.ModuleDict(
            {
                "b1_keep": ConvBNSiLU(c0, c1, kernel_size=1),
                "b2_down": nn.Sequential(
                    OrderedDict(
                        depthwise=strided_depthwise(c0, antialias=self.config.antialias),
                        pointwise=ConvBNSiLU(c0, c2, kernel_size=1),
                    )
                ),
            }
        )
        self.branches = nn.ModuleList(
            nn.Sequential(*(LiteBlock(channels, expansion=expansion) for _ in range(count)))
            for channels, count in zip((c1, c2), self.config.num_blocks, strict=True)
        )
        up = UpProject(c2, c1)
        down = nn.Sequential(
            OrderedDict(
                depthwise=strided_depthwise(c1, antialias=self.config.antialias),
                pointwise=nn.Conv2d(c1, c2, kernel_size=1, bias=False),
            )
        )
        self.fuse_layers = nn.ModuleList(
            [
                nn.ModuleList([nn.Identity(), up]),
                nn.ModuleList([down, nn.Identity()]),
            ]
        )
        self.fuse_add = nn.ModuleList([Addition(), Addition()])
        self.smooth = nn.ModuleList([ConvBNSiLU(c1, c1, kernel_size=3), ConvBNSiLU(c2, c2, kernel_size=3)])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features `[B,32,64,128]` to `Y1 [B,32,64,128]` and `Y2 [B,64,32,64]`."""
        check_features(features, self.config)
        x1 = self.transition["b1_keep"](features)  # [B,32,64,128]
        x2 = self.transition["b2_down"](features)  # [B,64,32,64]

        x1 = self.branches[0](x1)  # [B,32,64,128]
        x2 = self.branches[1](x2)  # [B,64,32,64]

        y1 = self._fuse(0, x1, x2)  # [B,32,64,128]
        y2 = self._fuse(1, x1, x2)  # [B,64,32,64]
        return y1, y2

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as any module does, whatever wrapper, pruning or enclosing network they come from.

        Raises:
            WeightsError: they are no Stage2's of this config and `strict` is set; the message says what to do.
        """
        due = self.state_dict()
        state = plain_names(state_dict, next(iter(due)))
        if strict:
            check_weights(state, due, self.config)
        return super().load_state_dict(state, strict, assign)

    def _fuse(self, i: int, *branches: Tensor) -> Tensor:
        """Bring every branch j to branch i, add, smooth."""
        aligned = [layer(x) for layer, x in zip(cast(nn.ModuleList, self.fuse_layers[i]), branches, strict=True)]
        y: Tensor = self.smooth[i](self.fuse_add[i](*aligned))
        return y


def inner_stage2(model: nn.Module, call: str) -> Stage2:
    """The Stage2 that `model` is, wrapped or not.

    Args:
        model: what a caller was given.
        call: the call as it should read, with `{}` where the network stands.

    Raises:
        TypeError: it is none; the message has the call.
    """
    inner = unwrapped(model)
    if isinstance(inner, Stage2):
        return inner
    name = type(inner).__name__
    parts = [n for n, part in inner.named_modules() if isinstance(part, Stage2)] if isinstance(inner, nn.Module) else []
    if not parts:
        raise InputError(f"a {name} is no Stage2 and holds none: write {call.format('stage2')}")
    raise InputError(f"a {name} is no Stage2 but holds one: write {call.format(f'network.{parts[0]}')}")


class ConvBNSiLU(nn.Sequential):
    """Bias-free convolution of stride 1, BatchNorm, SiLU: `[B,I,H,W] -> [B,O,H,W]`."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, groups: int = 1) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), act=nn.SiLU()))


class LiteBlock(nn.Module):
    """MBConv without squeeze: expand 1x1, depthwise 3x3, project 1x1, each with BN and SiLU; residual.

    Shape: `[B,C,H,W]` unchanged (s = 1 and Cin = Cout, so the residual is always there).
    """

    def __init__(self, channels: int, *, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = ConvBNSiLU(channels, hidden, kernel_size=1)
        self.depthwise = ConvBNSiLU(hidden, hidden, kernel_size=3, groups=hidden)
        self.project = ConvBNSiLU(hidden, channels, kernel_size=1)
        self.add = Addition()

    def forward(self, x: Tensor) -> Tensor:
        """Return `x + project(depthwise(expand(x)))`."""
        sum_: Tensor = self.add(x, self.project(self.depthwise(self.expand(x))))
        return sum_


class UpProject(nn.Module):
    """Bring the 1/8 branch to the 1/4 branch: bilinear x2, then 1x1 conv: `[B,I,H,W] -> [B,O,2H,2W]`.

    This is the specification's literal order. The resize weights sum to one and the projection is
    pointwise and bias-free, so the two commute; the quantised network uses the cheaper order.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Resize, then project."""
        y: Tensor = self.project(upsample2x(x))
        return y


class Addition(nn.Module):
    """An addition with a name, so that a quantised one can take its place."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return `a + b`."""
        return a + b


def upsample2x(x: Tensor) -> Tensor:
    """Bilinear x2 with half-pixel centres and clamped edges: `[B,C,H,W] -> [B,C,2H,2W]`."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def strided_depthwise(channels: int, *, antialias: bool) -> nn.Conv2d:
    """Bias-free depthwise 3x3 of stride 2: `[B,C,H,W] -> [B,C,H/2,W/2]`, a low-pass at first if `antialias`."""
    conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
    if antialias:
        binomial = torch.tensor([1.0, 2.0, 1.0])
        with torch.no_grad():
            conv.weight.copy_(torch.outer(binomial, binomial).expand_as(conv.weight) / 16)
    return conv


@torch.fx.wrap
def check_features(features: Tensor, config: Stage2Config) -> None:
    """`config.check_features`, in a form that `torch.fx` records instead of entering."""
    config.check_features(tuple(features.shape))
