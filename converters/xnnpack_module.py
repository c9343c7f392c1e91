"""The integer function as XNNPACK is given it: convolutions in the form that costs its kernels least."""

from __future__ import annotations

from torch import Tensor

from litehrnet_stage2.converters.regrouping import regroup
from litehrnet_stage2.converters.side_by_side import SideBySide, side_by_side
from litehrnet_stage2.reference.operators import Conv
from litehrnet_stage2.reference.qdq_module import QDQModule, requantize


class XnnpackModule(QDQModule):
    """`QDQModule` with cells side by side as one, where a convolution costs less so."""

    def form(self, conv: Conv) -> Conv:
        """With the weights for wider cells."""
        return self._side_by_side(conv).conv

    def convolve(self, conv: Conv, x: Tensor) -> Tensor:
        """Regroup, convolve, regroup."""
        form, q = self._side_by_side(conv), self.function.quantization
        if form.reads > 1:
            x = requantize(regroup(x, x.shape[3] // form.reads), q[conv.input])
        y = super().convolve(form.conv, x)
        if form.writes > 1:
            y = regroup(requantize(y, q[conv.name]), y.shape[3] * form.writes)
        return y

    def _side_by_side(self, conv: Conv) -> SideBySide:
        return side_by_side(conv, self.function.tensors[conv.input].shape)
