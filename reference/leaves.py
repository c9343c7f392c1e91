"""The leaves of a quantisation-aware network: each operator as a module that rounds what it writes.

Each has an `output`, the quantiser of its result. Leaves that an operator ties, because it only moves codes between
them, share one.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.functional import ACTIVATIONS, Padding, convolve, max_pool, upsample
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, WeightQuantizer


class Leaf(nn.Module):
    """An operator with an int8 result.

    Attributes:
        output: quantises the result.
    """

    output: ActivationQuantizer
    moves_codes: ClassVar[bool] = False
    """Whether it must share the quantiser of what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.output = ActivationQuantizer()

    def tie(self, output: ActivationQuantizer) -> None:
        """Round with another leaf's quantiser, whose state stays with that leaf."""
        self._modules.pop("output", None)
        self.__dict__["output"] = output


class QuantConv(Leaf):
    """Convolution with int8 weights, a bias, and an int8 output: `[B,I,H,W] -> [B,O,H',W']`.

    Attributes:
        stride, dilation: along height and width.
        padding: cells before and after, `(top, left, bottom, right)`.
        activation: `"relu"` or `"relu6"`, which the saturation of the codes then is; or None.
    """

    def __init__(self, conv: nn.Conv2d, *, activation: str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(conv.out_channels))
        self.stride, self.dilation = cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.dilation)
        self.padding = padding_of(conv)
        self.groups = conv.groups
        self.activation = activation
        self.weight_quantizer = WeightQuantizer()

    @torch.no_grad()
    def copy_float(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None) -> None:
        """Take a float convolution's weight and bias, with BatchNorm folded into both."""
        self.weight.copy_(conv.weight)
        self.bias.copy_(torch.zeros_like(self.bias) if conv.bias is None else conv.bias)
        if bn is not None:
            factor, offset = folded(bn)
            self.weight.mul_(factor[:, None, None, None])
            self.bias.mul_(factor).add_(offset)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with fake-quantised weights, unless in `Mode.FLOAT` or `Mode.CALIBRATE`."""
        rounds = self.output.mode is Mode.FAKE_QUANTIZE
        weight = self.weight_quantizer(self.weight) if rounds else self.weight
        y = convolve(x, weight, self.bias, self)
        rounded: Tensor = self.output(ACTIVATIONS[self.activation](y) if self.activation else y)
        return rounded


class QuantSiLU(Leaf):
    """`x * sigmoid(x)` with an int8 output; the sigmoid is rounded to its fixed scale 1/256."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds_sigmoid = True

    def forward(self, x: Tensor) -> Tensor:
        """Return SiLU of `x`, any shape."""
        sigmoid = torch.sigmoid(x)
        if self.output.quantizes and self.rounds_sigmoid:
            sigmoid = torch.fake_quantize_per_tensor_affine(sigmoid, 1 / 256, -128, -128, 127)
        y: Tensor = self.output(x * sigmoid)
        return y


class QuantAdd(Leaf):
    """Addition with an int8 output.

    Attributes:
        activation: as in `QuantConv`.
    """

    def __init__(self, *, activation: str | None = None) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return `a + b`."""
        y = a + b
        rounded: Tensor = self.output(ACTIVATIONS[self.activation](y) if self.activation else y)
        return rounded


class QuantTable(Leaf):
    """A function of one code, by its name in `operators.table.FUNCTIONS`, with an int8 output."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply it, any shape."""
        y: Tensor = self.output(ACTIVATIONS[self.function](x))
        return y


class QuantMul(Leaf):
    """Product with an int8 output; the second factor may be a gate `[B,C,1,1]`."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return `a * b`."""
        y: Tensor = self.output(a * b)
        return y


class QuantMean(Leaf):
    """Mean over a map of so many cells: `[B,C,H,W] -> [B,C,1,1]`."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """Return it, with an int8 output."""
        y: Tensor = self.output(x.mean(dim=(2, 3), keepdim=True))
        return y


class QuantResize(Leaf):
    """Bilinear resize by 2, 4 or 8 on the int8 grid of its input."""

    moves_codes = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B,C,H,W]` to `[B,C,factor*H,factor*W]`."""
        y = upsample(x, self.factor)
        return self.output.round(y) if self.output.quantizes else y


class QuantNearest(Leaf):
    """Nearest-neighbour resize by a whole factor."""

    moves_codes = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B,C,H,W]` to `[B,C,factor*H,factor*W]`."""
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")


class QuantMaxPool(Leaf):
    """Maximum over windows; cells of the padding never win."""

    moves_codes = True

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: Padding) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B,C,H,W]` to `[B,C,H',W']`."""
        return max_pool(x, self)


class QuantConcat(Leaf):
    """Concatenation of channels."""

    moves_codes = True

    def forward(self, *inputs: Tensor) -> Tensor:
        """Map tensors `[B,Ci,H,W]` to `[B,C,H,W]`."""
        return torch.cat(inputs, dim=1)


def folded(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and offset of a BatchNorm in eval: float32 `[C]` each."""
    weight: Any = 1.0 if bn.weight is None else bn.weight
    bias: Any = 0.0 if bn.bias is None else bn.bias
    factor = weight / torch.sqrt(cast(Tensor, bn.running_var) + bn.eps)
    return factor, bias - cast(Tensor, bn.running_mean) * factor


def padding_of(conv: nn.Conv2d) -> Padding:
    """`(top, left, bottom, right)` of a convolution's padding, `"same"` included."""
    if isinstance(conv.padding, str):
        both = [step * (size - 1) for step, size in zip(conv.dilation, conv.kernel_size, strict=True)]
        height, width = both if conv.padding == "same" else (0, 0)
        return height // 2, width // 2, height - height // 2, width - width // 2
    height, width = conv.padding
    return height, width, height, width
