"""Small networks of shapes that people use, none of them Stage2: what quantising whole networks is tried on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act())


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class MobileNet(nn.Module):
    """Squeeze-excite with Hardswish, and a Linear behind a global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16, stride=2, act=nn.Hardswish)
        self.expand = unit(16, 32, 1, act=nn.Hardswish)
        self.depthwise = unit(32, 32, 5, groups=32, act=nn.Hardswish)
        self.squeeze = SqueezeExcite(32)
        self.project = unit(32, 16, 1, act=nn.Identity)
        self.pool, self.classes = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        x = x + self.project(self.squeeze(self.depthwise(self.expand(x))))
        return {"logits": self.classes(torch.flatten(self.pool(x), 1))}


class UNet(nn.Module):
    """Nearest resizes and concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = unit(3, 16), unit(16, 32, stride=2), unit(32, 32, stride=2)
        self.up2, self.up1, self.mask = unit(64, 32), unit(48, 16), nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        a = self.down1(image)
        b = self.down2(a)
        x = F.interpolate(self.down3(b), scale_factor=2, mode="nearest")
        x = F.interpolate(self.up2(torch.cat([x, b], 1)), scale_factor=2, mode="nearest")
        return {"mask": self.mask(self.up1(torch.cat([x, a], 1)))}


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)  # used twice, as is usual: it has no weights
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(y + self.downsample(x))
        return result


class ResNet(nn.Module):
    """MaxPool with padding, additions under a ReLU, a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = unit(3, 16, 7, stride=2), nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = BasicBlock(16, 16, 1), BasicBlock(16, 32, 2)
        self.mean, self.classes = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.mean(self.layer2(self.layer1(self.pool(self.stem(image)))))
        result: Tensor = self.classes(x.flatten(1))
        return result


class DenseNet(nn.Module):
    """BatchNorm and ReLU before the convolution, concatenations of concatenations, AvgPool."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16 + 8 * i for i in range(3)]
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, 8, 3, 1, 1, bias=False) for width in widths)
        self.norm, self.pool, self.out = nn.BatchNorm2d(40), nn.AvgPool2d(2), nn.Conv2d(40, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        result: Tensor = self.out(self.pool(torch.relu(self.norm(x))))
        return result


class ThreeBranches(nn.Module):
    """HRNet's fusion into the finest of three branches: bilinear by 2 and by 4; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.full, self.halved = unit(3, 16, act=nn.SiLU), unit(16, 24, stride=2, act=nn.SiLU)
        self.quartered = unit(24, 32, stride=2, act=nn.SiLU)
        self.from_half = nn.Conv2d(24, 16, 1, bias=False)
        self.from_quarter = nn.Sequential(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.up2 = nn.Upsample(scale_factor=2, mode="bilinear")
        self.up4 = nn.Upsample(scale_factor=4, mode="bilinear")
        self.heat, self.offset = nn.Conv2d(16, 3, 1), nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        full = self.full(image)
        half = self.halved(full)
        quarter = self.quartered(half)
        y = F.relu(full + self.from_half(self.up2(half)) + self.up4(self.from_quarter(quarter)))
        return self.heat(y), torch.tanh(self.offset(y))


class Chain(nn.Module):
    """Convolutions and ReLUs alone, one of them a ReLU6, and one channel at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU6()),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid()),
        )

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.net(image)
        return result


NETWORKS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (MobileNet, UNet, ResNet, DenseNet, ThreeBranches, Chain)
}


def outputs(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What a network gives, by name."""
    found = network(image)
    if isinstance(found, dict):
        return found
    return {f"y{i}": y for i, y in enumerate(found if isinstance(found, tuple) else (found,))}


def random(network: nn.Module, images: Tensor) -> nn.Module:
    """The network with BatchNorms that have seen something: no statistic, factor or offset is neutral."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.4)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def trained(network: nn.Module, images: Tensor) -> nn.Module:
    """The network after a few steps towards its images in grey: no weight is independent of the others."""
    optimizer = torch.optim.Adam(network.train().parameters(), lr=0.01)
    for _ in range(8):
        loss = torch.zeros(())
        for y in outputs(network, images).values():
            grey = F.adaptive_avg_pool2d(images.mean(1, keepdim=True), y.shape[2:] or 1)
            loss = loss + (y - grey.reshape(len(y), 1, *y.shape[2:])).square().mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


WEIGHTS = {"random": random, "trained": trained}
