"""What is free to vary in Stage2, checked once, at construction."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litehrnet_stage2.reference.errors import InputError

_BOUNDS = (
    ("in_channels", 1, 1024),
    ("num_channels", 1, 1024),
    ("num_blocks", 0, 32),
    ("expansion", 1, 16),
)


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """The shape of a two-branch Stage2. The defaults are the specification's values.

    Attributes:
        in_channels: channels of the incoming 1/4-resolution features, 1 to 1024.
        num_channels: channels of the 1/4 and the 1/8 branch, 1 to 1024.
        num_blocks: LiteBlocks in the 1/4 and the 1/8 branch, 0 to 32.
        expansion: `e` of LiteBlock, the factor its hidden width has over its channels, 1 to 16.
        antialias: start the strided depthwise filters as the binomial low-pass
            `[1,2,1] x [1,2,1] / 16`, which is what the specification says they do.

    Raises:
        ValueError: a value is out of range; the message carries it.
    """

    in_channels: int = 32
    num_channels: tuple[int, int] = (32, 64)
    num_blocks: tuple[int, int] = (2, 2)
    expansion: int = 2
    antialias: bool = True

    def __post_init__(self) -> None:
        for field in ("num_channels", "num_blocks"):
            value = getattr(self, field)
            if not isinstance(value, (tuple, list)) or len(value) != 2:
                raise InputError(
                    f"`{field}` (={reprlib.repr(value)}) must have two entries: the 1/4 and the 1/8 branch"
                )
            object.__setattr__(self, field, tuple(value))
        for field, least, most in _BOUNDS:
            value = getattr(self, field)
            if any(type(v) is not int or not least <= v <= most for v in _entries(value)):
                raise InputError(f"`{field}` (={reprlib.repr(value)}) must be made of integers from {least} to {most}")
        if type(self.antialias) is not bool:
            raise InputError(f"`antialias` (={reprlib.repr(self.antialias)}) must be true or false")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage2Config:
        """The config that `dataclasses.asdict` wrote, possibly by way of JSON.

        Raises:
            ValueError: an unknown key; the message lists the known ones.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"unknown Stage2Config key {reprlib.repr(unknown[0])}: the keys are {', '.join(sorted(known))}"
            )
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)

    def check_features(self, shape: tuple[int, ...]) -> None:
        """Check the shape of an input `[B, in_channels, H, W]`, `H` and `W` even.

        Raises:
            ValueError: wrong rank, channel count or an odd size.
        """
        if len(shape) != 4:
            raise InputError(f"features must have rank 4, [B,{self.in_channels},H,W], but have shape {shape}")
        if shape[3] == self.in_channels != shape[1]:
            raise InputError(
                f"features must be [B,{self.in_channels},H,W], but in shape {shape} the channels stand last: "
                "move them, in PyTorch with .permute(0, 3, 1, 2), in numpy with .transpose(0, 3, 1, 2)"
            )
        if shape[1] != self.in_channels:
            raise InputError(f"features must have {self.in_channels} channels, but have {shape[1]} (shape {shape})")
        height, width = shape[2:]
        if height % 2 or width % 2 or not height or not width:
            raise InputError(
                f"features must have an even height and width, but are {height}x{width}: "
                "the 1/8 branch halves both, and fusion doubles it back"
            )


def _entries(value: int | tuple[int, int]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
