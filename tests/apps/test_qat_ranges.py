"""Raised floors: only what nobody but SiLUs reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.qat.ranges import raise_floors
from litehrnet_stage2.reference.network import quantize


class _Net(nn.Module):
    """A convolution that a SiLU alone reads, one that an addition reads too, and one that is an output."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.shared, self.last = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.act = nn.ModuleList(nn.SiLU() for _ in range(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        shared = self.shared(self.act[0](self.alone(x)))
        return {"y": self.last(shared + self.act[1](shared))}


def test_floors_rise_where_only_silus_read_and_nowhere_else() -> None:
    torch.manual_seed(0)
    inputs = 40 * torch.randn(4, 4, 8, 8)
    network = quantize(_Net().eval(), inputs).calibrate(inputs)
    before = {name: float(network.get_submodule(name).output.low) for name in ("alone", "shared", "last")}
    assert all(low < -5 for low in before.values()), before
    raise_floors(network, -5.0)
    after = {name: float(network.get_submodule(name).output.low) for name in before}
    assert after == before | {"alone": -5.0}
