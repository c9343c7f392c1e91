"""The quantisation-aware Stage2: the float network with each leaf replaced by one that knows its int8.

The network's shape (`Stage2.forward`) is inherited, not repeated. What is replaced: BatchNorm is folded,
every convolution, SiLU and addition rounds what it writes, and the projection into the 1/4 branch comes
before the resize.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.leaves import QuantAdd, QuantConv, QuantResize, QuantSiLU
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, check_calibration, set_mode
from litehrnet_stage2.reference.stage2 import (
    Addition,
    ConvBNSiLU,
    Stage2,
    UpProject,
    inner_stage2,
)
from litehrnet_stage2.reference.upstream.torch_2_13 import changes

EXAMPLES = 3
"""How many of the features that it was calibrated on a network keeps."""

_TRAIN_MODE = (
    "a QATStage2 is trained in train() mode: it has no BatchNorm itself, but those around it now follow each small "
    "batch, which the ranges do not; call network.eval() before the loop, unless you mean to train those too"
)


class QATStage2(Stage2):
    """Stage2 with quantisers in its activations and weights; starts in `Mode.FLOAT`, and rounds once calibrated.

    An ordinary `nn.Module`: put it where the float Stage2 was, train it with any loop. Same shapes as
    `Stage2`. Its `state_dict` keys do not depend on the mode; loading that of a calibrated network makes it round.

    Attributes:
        size: height and width of the features it was calibrated on. A checkpoint keeps it; not part of the state.
        examples: the first of those features, float32 `[n, in_channels, H, W]`. A checkpoint keeps them as golden
            inputs; not part of the state.
    """

    function_name = "stage2"
    input_names = ("features",)
    output_names = ("y1", "y2")
    examples: Tensor | None

    def __init__(self, config: Stage2Config | None = None) -> None:
        super().__init__(config)
        self.input = ActivationQuantizer()
        self.size: tuple[int, int] | None = None
        self._versions: list[int] = []
        self.register_buffer("examples", None, persistent=False)
        _replace_leaves(self)

    @classmethod
    def from_float(cls, stage2: nn.Module) -> QATStage2:
        """The quantisation-aware network that computes, in `Mode.FLOAT`, what `stage2.eval()` computes.

        It is in `stage2`'s mode, eval or training. Build the optimiser after it has taken the float network's place:
        one built before holds the float weights and trains nothing.

        Raises:
            ValueError: `stage2` is quantisation-aware already, or has other weights than a Stage2.
            TypeError: `stage2` is another network.
        """
        stage2 = inner_stage2(stage2, "QATStage2.from_float({})")
        if isinstance(stage2, QATStage2):
            raise InputError(
                "`from_float` was given a QATStage2, which is quantisation-aware already: use it as it is, or give the "
                "float Stage2 that it came from"
            )
        plain, qat = Stage2(stage2.config), cls(stage2.config)
        plain.load_state_dict(stage2.state_dict())
        _copy_leaves(plain, qat)
        return qat.train(stage2.training)

    @property
    def calibrated(self) -> bool:
        """Whether the range of every tensor is known."""
        return all(module.calibrated for module in self.modules() if isinstance(module, ActivationQuantizer))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features `[B,32,64,128]` to `Y1 [B,32,64,128]` and `Y2 [B,64,32,64]`."""
        if self.training and torch.is_grad_enabled() and self.input.mode is not Mode.FLOAT:
            warnings.warn(_TRAIN_MODE, stacklevel=2)
        return super().forward(self.input(features))

    @property
    def untouched(self) -> bool:
        """Whether gradients were computed since it was calibrated and yet no weight was changed."""
        return any(p.grad is not None for p in self.parameters()) and self._versions == self._count_changes()

    def _count_changes(self) -> list[int]:
        return [changes(parameter) for parameter in self.parameters()]

    @property
    def calibrated_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one image of the features that it was calibrated on, or nothing where that is not known."""
        return () if self.size is None else ((1, self.config.in_channels, *self.size),)

    @torch.no_grad()
    def calibrate(self, features: Tensor) -> QATStage2:
        """Set every range from float features `[N, in_channels, H, W]`, then switch to `Mode.FAKE_QUANTIZE`.

        Raises:
            TypeError: the features are no float32 tensor.
            ValueError: the features are all zero, or they, or what the network makes of them, are not finite.
        """
        _check_dtypes(features, next(self.parameters()).dtype)
        self.config.check_features(tuple(features.shape))
        check_calibration("features", features)
        for module in self.modules():
            if isinstance(module, ActivationQuantizer):
                module.forget()
        set_mode(self, Mode.CALIBRATE)
        for batch in torch.split(features, 8):
            self(batch)
        set_mode(self, Mode.FAKE_QUANTIZE)
        self._versions = self._count_changes()
        self.size = (features.shape[2], features.shape[3])
        self.examples = features[:EXAMPLES].clone()
        return self


class QuantConvSiLU(nn.Sequential):
    """Convolution with BatchNorm folded in, then SiLU."""

    def __init__(self, unit: ConvBNSiLU) -> None:
        super().__init__(OrderedDict(conv=QuantConv(cast(nn.Conv2d, unit.conv)), act=QuantSiLU()))


class QuantProjectUp(nn.Module):
    """1x1 projection, then bilinear x2 on its int8 grid: the commuted order of `UpProject`."""

    def __init__(self, unit: UpProject) -> None:
        super().__init__()
        self.project = QuantConv(unit.project)
        self.resize = QuantResize(2)
        self.resize.tie(self.project.output)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B,I,H,W]` to `[B,O,2H,2W]`; in and out of the resize share one quantiser."""
        y: Tensor = self.resize(self.project(x))
        return y


def _check_dtypes(features: object, weights: torch.dtype) -> None:
    if not isinstance(features, Tensor):
        name = type(features).__name__
        raise InputError(f"calibrate takes a tensor, but was given a {name}: write calibrate(torch.from_numpy(...))")
    if not features.dtype == weights == torch.float32:
        raise InputError(
            f"calibrate takes float32, but the features are {features.dtype} and the weights {weights}: "
            "write stage2.float().calibrate(features.float())"
        )


def _replace_leaves(module: nn.Module) -> None:
    for name, child in module.named_children():
        match child:
            case ConvBNSiLU():
                replacement: nn.Module = QuantConvSiLU(child)
            case UpProject():
                replacement = QuantProjectUp(child)
            case nn.Conv2d():
                replacement = QuantConv(child)
            case Addition():
                replacement = QuantAdd()
            case _:
                _replace_leaves(child)
                continue
        module.register_module(name, replacement)


def _copy_leaves(source: nn.Module, target: nn.Module) -> None:
    for name, child in source.named_children():
        counterpart = target.get_submodule(name)
        match child, counterpart:
            case ConvBNSiLU(), QuantConvSiLU():
                quant = cast(QuantConv, counterpart.conv)
                quant.copy_float(cast(nn.Conv2d, child.conv), cast(nn.BatchNorm2d, child.bn))
            case nn.Conv2d(), QuantConv():
                counterpart.copy_float(child)
            case _:
                _copy_leaves(child, counterpart)
