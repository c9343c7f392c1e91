"""Random networks of known operators: what nobody thought of, quantising whole networks is tried on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh)
KINDS = ("conv",) * 5 + (
    *("depthwise", "activation", "activation", "silu", "add", "mul", "cat", "bilinear", "nearest", "max_pool"),
    *("avg_pool", "gate", "batch_norm", "normalise"),
)
MOST_CELLS = 64  # of a side of a map


@dataclass(frozen=True)
class Step:
    """What writes a tensor: the tensors that it reads, and how."""

    name: str
    reads: tuple[str, ...]
    compute: Callable[..., Tensor] = field(repr=False)


class RandomNetwork(nn.Module):
    """A graph of 4 to 14 steps over small maps, one to three outputs; equal seeds give equal networks.

    Attributes:
        shape: of its one input, `[C, H, W]`.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        torch.manual_seed(seed)
        self.layers = nn.ModuleDict()
        self.steps: list[Step] = []
        self.shape = tuple(map(self.chance.choice, ((1, 3, 3, 4, 8), (8, 12, 16, 20), (8, 12, 16, 24))))
        self.shapes: dict[str, tuple[int, ...]] = {"x": self.shape}
        for _ in range(self.chance.randint(4, 14)):
            self._grow(self.chance.choice(KINDS))
        if not self.steps:
            self._add(("x",), nn.Conv2d(self.shape[0], 4, 3, padding=1))
        read = {name for step in self.steps for name in step.reads}
        self.outputs = [step.name for step in self.steps if step.name not in read][-3:]
        self._settle_batch_norms()
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Every tensor that nothing reads, the last three of them."""
        tensors = {"x": x}
        for step in self.steps:
            tensors[step.name] = step.compute(*(tensors[name] for name in step.reads))
        return {f"out_{name}": tensors[name] for name in self.outputs}

    def examples(self, count: int, *, pixels: bool) -> Tensor:
        """Inputs `[count, C, H, W]`: uint8 pixels, or normal float32."""
        if pixels:
            return torch.randint(0, 256, (count, *self.shape), dtype=torch.uint8)
        return torch.randn(count, *self.shape)

    def _settle_batch_norms(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.3, 2)
                nn.init.uniform_(module.weight, 0.5, 1.6)
                nn.init.normal_(module.bias, std=0.3)

    def _add(self, reads: tuple[str, ...], compute: Callable[..., Tensor]) -> None:
        """Append a step, if what it gives is a map of a size that is worth trying."""
        with torch.no_grad():
            try:
                shape = tuple(compute(*(torch.zeros(1, *self.shapes[name]) for name in reads)).shape[1:])
            except RuntimeError:  # a kernel larger than the map
                return
        if max(shape[1:]) > MOST_CELLS or shape[0] > 48:
            return
        name = f"t{len(self.steps)}"
        if isinstance(compute, nn.Module):
            self.layers[name] = compute
        self.steps.append(Step(name, reads, compute))
        self.shapes[name] = shape

    def _like(self, source: str, *, dimensions: slice) -> list[str]:
        wanted = self.shapes[source][dimensions]
        return [name for name, shape in self.shapes.items() if shape[dimensions] == wanted and name != source]

    def _grow(self, kind: str) -> None:
        chance = self.chance
        source = chance.choice(list(self.shapes)[-4:])
        channels = self.shapes[source][0]
        match kind:
            case "conv" | "depthwise":
                self._add((source,), nn.Sequential(*self._convolution(channels, depthwise=kind == "depthwise")))
            case "activation":
                self._add((source,), chance.choice([a for a in ACTIVATIONS if a is not nn.SiLU])())
            case "silu":
                self._add((source,), nn.SiLU())
            case "batch_norm":
                self._add((source,), nn.BatchNorm2d(channels).eval())
            case "normalise":
                mean, deviation = chance.uniform(-0.5, 0.5), chance.uniform(0.2, 2)
                self._add((source,), lambda x: (x - mean) / deviation)
            case "add" | "mul":
                if others := self._like(source, dimensions=slice(None)):
                    operation = torch.add if kind == "add" else torch.mul
                    self._add((source, chance.choice(others)), operation)
            case "cat":
                if others := self._like(source, dimensions=slice(1, None)):
                    joined = chance.sample(others, min(len(others), chance.randint(1, 3)))
                    self._add((source, *joined), lambda *xs: torch.cat(xs, 1))
            case "bilinear" | "nearest":
                factor, align = chance.choice((2, 2, 4, 8) if kind == "bilinear" else (2, 3, 4)), None
                align = False if kind == "bilinear" else None
                self._add((source,), lambda x: F.interpolate(x, scale_factor=factor, mode=kind, align_corners=align))
            case "max_pool" | "avg_pool":
                pool = nn.MaxPool2d if kind == "max_pool" else nn.AvgPool2d
                self._add((source,), pool(*chance.choice(((2, 2, 0), (3, 2, 1), (3, 1, 1)))))
            case "gate":
                self._add((source,), Gate(channels, chance.choice((nn.Sigmoid, nn.Hardsigmoid))))

    def _convolution(self, channels: int, *, depthwise: bool) -> Iterator[nn.Module]:
        chance = self.chance
        outputs = channels if depthwise else chance.choice((1, 2, 3, 5, 8, 13, 16))
        kernel, dilation = chance.choice((1, 1, 3, 3, 5)), chance.choice((1, 1, 1, 2))
        groups = next(
            g for g in (channels if depthwise else chance.choice((1, 1, 2)), 1) if not (channels % g or outputs % g)
        )
        padding = chance.choice((dilation * (kernel - 1) // 2,) * 3 + (0,))
        stride = chance.choice((1, 1, 1, 2))
        yield nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias=chance.random() < 0.5)
        if chance.random() < 0.6:
            yield nn.BatchNorm2d(outputs).eval()
        if chance.random() < 0.6:
            yield chance.choice(ACTIVATIONS)()


class Gate(nn.Module):
    """Squeeze-excite."""

    def __init__(self, channels: int, gate: type[nn.Module]) -> None:
        super().__init__()
        middle = max(1, channels // 2)
        self.reduce, self.expand, self.gate = nn.Conv2d(channels, middle, 1), nn.Conv2d(middle, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        """A map, weighed channel by channel."""
        weights: Tensor = self.gate(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return x * weights
