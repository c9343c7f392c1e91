"""Every knob of `stage2 qat`: one flat TOML file, each value overridable by `--set key=value`."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular

TaskName = Literal["distillation", "landmarks"]
Ranges = Literal["fixed", "learned"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class QatConfig:
    """The knobs, as in `qat.toml` beside this file, which says what each is for.

    Raises:
        ValueError: a value is of the wrong type or out of range; the message carries it.
    """

    task: TaskName = "distillation"
    seed: int = 0
    steps: int = 300
    batch: int = 16
    crop_cells: int = 32
    scenes: int = 1000
    held_out_maps: int = 32
    calibration_maps: int = 64
    calibration_quantile: float = 1.0
    silu_floor: float = -5.0
    ranges: Ranges = "fixed"
    freeze_ranges_after: float = 0.5
    step_size_rate: float = 1e-3
    learning_rate: float = 5e-4
    quarter_rate_factor: float = 1.0
    eighth_rate_factor: float = 1.0
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    task_weight: float = 0.0
    answer_weight: float = 0.0
    diverged_at: float = 100.0
    choose_every: int = 100
    checkpoint_every: int = 100
    keep_checkpoints: int = 3
    threads: int = 0

    def __post_init__(self) -> None:
        for name, expected in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if choices := get_args(expected):
                if value not in choices:
                    raise InputError(f"`{name}` (={value!r}) must be one of {', '.join(choices)}")
            elif expected is float and type(value) is int:
                object.__setattr__(self, name, float(value))
            elif type(value) is not expected:
                raise InputError(f"`{name}` (={value!r}) must be of type {expected.__name__}")
        for low, high, names in _BOUNDS:
            for name in names.split():
                value = getattr(self, name)
                if not low <= value <= high:
                    raise InputError(f"`{name}` (={value}) must lie in [{low:g}, {high:g}]")
        if self.crop_cells % 2:
            raise InputError(f"`crop_cells` (={self.crop_cells}) must be even: the 1/8 branch halves it")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> QatConfig:
        """A config from plain values.

        Raises:
            ValueError: an unknown key (the message lists the known ones) or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise InputError(f"unknown key {unknown[0]!r} in the qat config: the keys are {', '.join(known)}")
        return cls(**values)


MOST_BYTES = 2**16

_BOUNDS: tuple[tuple[float, float, str], ...] = (
    (1, 10**7, "steps batch calibration_maps choose_every checkpoint_every keep_checkpoints scenes"),
    (2, 10**7, "held_out_maps"),
    (0, 10**9, "seed crop_cells threads"),
    (0.9, 1, "calibration_quantile"),
    (0, 1, "freeze_ranges_after step_size_rate learning_rate warmup weight_decay ema_decay"),
    (0, 1e3, "quarter_rate_factor eighth_rate_factor task_weight answer_weight"),
    (1e-6, 1e6, "clip_norm"),
    (-1e6, -1, "silu_floor"),
    (1, 1e12, "diverged_at"),
)


def read_config(path: Path | None, overrides: Iterable[str] = ()) -> QatConfig:
    """The defaults, then a TOML file's values, then `key=value` overrides.

    An override's value is TOML; a bare word is taken as a string.

    Raises:
        ValueError: the file is no regular file, larger than `MOST_BYTES`, not TOML, or a key or value is not known.
        FileNotFoundError: there is no such file.
    """
    values: dict[str, Any] = {}
    if path is not None:
        content = read_regular(path, most_bytes=MOST_BYTES)
        try:
            values = tomllib.loads(content.decode())
        except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested without end
            raise InputError(f"{path} is not valid TOML: {error}") from error
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InputError(f"override {override!r} must read key=value")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            values[key.strip()] = text.strip()
    return QatConfig.from_mapping(values)
