"""Quantisers as plain modules: what observes ranges, and what rounds values to codes during training."""

from __future__ import annotations

import enum
import math

import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import QMAX, QMIN
from litehrnet_stage2.reference.upstream.torch_2_13 import fake_quantize_learnable

WEIGHT_QMAX = 127  # weights are symmetric, in [-127, 127]
ZERO_SCALE = 2.0**-40  # of a tensor or weight channel that is constantly zero; freezing raises it as kernels need
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny  # a scale below it has no finite inverse


def check_calibration(name: str, x: Tensor) -> None:
    """Check that an input to calibrate on holds anything: the ranges that zeros set fit nothing else.

    Raises:
        InputError: every value is zero.
    """
    if not x.any():
        raise InputError(
            f"{name} to calibrate on must hold what the network will see, but every value is zero: record them again, "
            "of Stage2 with capture_features(network, batches, Path('shards'))"
        )


class Mode(enum.Enum):
    """What an activation quantiser does with what passes through it."""

    FLOAT = "float"
    """Nothing."""
    CALIBRATE = "calibrate"
    """Record the range, pass the value on unchanged."""
    FAKE_QUANTIZE = "fake_quantize"
    """Fake-quantise; the range is what it is, or learned (`learn_step_sizes`)."""


class ActivationQuantizer(nn.Module):
    """Per-tensor affine int8 of an activation, zero always a code.

    Fake quantisation is differentiable: straight-through for the values, and the LSQ gradient for `scale`
    where it requires one (Esser et al., "Learned Step Size Quantization", 2020).

    Attributes:
        scale: float32 `[]`, a parameter that by default requires no gradient.
        zero_point: int32 `[]`, the code of zero.
        low, high: float32 `[]`, the range seen so far, zero included; `inf` and `-inf` before anything is seen.
        mode: see `Mode`; not part of the state. After `load_state_dict` it follows the range: `Mode.FAKE_QUANTIZE`
            if that is known, `Mode.FLOAT` if not.
        bypassed: whether values pass unrounded whatever the mode, for a target that keeps this tensor in
            float; not part of the state.
    """

    scale: nn.Parameter
    zero_point: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 128), requires_grad=False)
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.int32))
        self.register_buffer("low", torch.tensor(math.inf))
        self.register_buffer("high", torch.tensor(-math.inf))
        self.mode = Mode.FLOAT
        self.bypassed = False
        self.register_load_state_dict_post_hook(_follow_range)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Observe and round `x`, any shape, as the mode says."""
        if self.mode is Mode.CALIBRATE:
            self._observe(x.detach())
        return self.round(x) if self.quantizes else x

    @property
    def calibrated(self) -> bool:
        """Whether the range is known; that of a tensor which is constantly zero is `[0, 0]`."""
        return bool(self.low <= self.high)

    @property
    def quantizes(self) -> bool:
        """Whether the mode rounds what passes through."""
        return self.mode is Mode.FAKE_QUANTIZE and not self.bypassed

    def round(self, x: Tensor) -> Tensor:
        """Fake-quantise `x` whatever the mode."""
        if self.scale.requires_grad:
            steps = x.numel() * QMAX
            scale, zero_point = self.scale.reshape(1), self.zero_point.float().reshape(1)  # as the operator wants
            out: Tensor = fake_quantize_learnable(x, scale, zero_point, QMIN, QMAX, steps**-0.5)
            return out
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, QMIN, QMAX)

    @torch.no_grad()
    def set_range(self, low: float, high: float) -> None:
        """Choose scale and zero point so that `[low, high]`, widened to hold zero, is covered.

        Raises:
            ValueError: a bound is NaN or infinite.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(
                f"an activation ranges over [{low}, {high}], which is not finite: "
                "check the features and the checkpoint for NaN and infinities"
            )
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / (QMAX - QMIN)
        if scale < _SMALLEST_NORMAL:
            scale = ZERO_SCALE
        self.low.fill_(low)
        self.high.fill_(high)
        self.scale.fill_(scale)
        self.zero_point.fill_(max(QMIN, min(QMAX, round(QMIN - low / scale))))

    @torch.no_grad()
    def forget(self) -> None:
        """Forget the range seen; the next one observed takes its place."""
        self.low.fill_(math.inf)
        self.high.fill_(-math.inf)

    @torch.no_grad()
    def _observe(self, x: Tensor) -> None:
        low, high = torch.aminmax(x)
        self.set_range(float(torch.minimum(low, self.low)), float(torch.maximum(high, self.high)))


class WeightQuantizer(nn.Module):
    """Per-output-channel symmetric int8 of a convolution's weight, in [-127, 127]; no state, straight-through."""

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantise `weight`, float32 `[O, I/groups, k, k]`."""
        scale = self.scale(weight)
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_point, 0, -WEIGHT_QMAX, WEIGHT_QMAX)

    def scale(self, weight: Tensor) -> Tensor:
        """`max|w| / 127` of each output channel, `ZERO_SCALE` where all is zero: float32 `[O]`."""
        scale = weight.detach().abs().amax(dim=(1, 2, 3)).div(WEIGHT_QMAX)
        return scale.masked_fill(scale < _SMALLEST_NORMAL, ZERO_SCALE)


def _follow_range(quantizer: nn.Module, _: object) -> None:
    assert isinstance(quantizer, ActivationQuantizer)
    quantizer.mode = Mode.FAKE_QUANTIZE if quantizer.calibrated else Mode.FLOAT


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Put every activation quantiser of `model` into a mode.

    Raises:
        ValueError: `Mode.FAKE_QUANTIZE`, and a range is not known.
    """
    quantizers = {name: module for name, module in model.named_modules() if isinstance(module, ActivationQuantizer)}
    if mode is Mode.FAKE_QUANTIZE and (unknown := [name for name, q in quantizers.items() if not q.calibrated]):
        raise InputError(f"the range of `{unknown[0]}` is not known: call `calibrate(features)` before it is rounded")
    for quantizer in quantizers.values():
        quantizer.mode = mode


@torch.no_grad()
def keep_scales_positive(model: nn.Module) -> None:
    """Keep learned scales of `model` above a thousandth of what their range asks for: call it after each step."""
    for quantizer in model.modules():
        if isinstance(quantizer, ActivationQuantizer) and quantizer.scale.requires_grad:
            least = float(quantizer.high - quantizer.low) / (QMAX - QMIN) / 1000
            quantizer.scale.clamp_(min=max(least, float(_SMALLEST_NORMAL)))


def learn_step_sizes(model: nn.Module) -> list[nn.Parameter]:
    """Let every activation quantiser of `model` learn its scale (LSQ); returns the scales, for the optimiser."""
    scales = [module.scale for module in model.modules() if isinstance(module, ActivationQuantizer)]
    for scale in scales:
        scale.requires_grad_(True)
    return scales
