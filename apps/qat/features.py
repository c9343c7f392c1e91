"""Feature shards: what a network's own stage 1 sends into Stage2, recorded once and read memory-mapped."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litehrnet_stage2.reference.array_files import map_npy
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.stage2 import Stage2

_CHUNK = 64  # maps read at once


class FeatureShards:
    """Feature maps of any number of `.npy` files, as one sequence.

    Each file holds `[N,C,H,W]` float16 or float32; `C`, `H`, `W` are the same in all.

    Raises:
        ValueError: no file, an empty set, a wrong rank, channel count, size or dtype, or a value that is
            not finite. Everything is checked here, before any training starts.
    """

    def __init__(self, paths: Sequence[Path], *, channels: int) -> None:
        if not paths:
            raise InputError("no feature shard: --features must name at least one .npy file (a glob will do)")
        self._shards: list[npt.NDArray[np.floating]] = []
        for path in paths:
            shard = map_npy(path)
            if shard.dtype not in (np.float16, np.float32):
                raise InputError(f"{path} holds {shard.dtype}: features must be float16 or float32")
            if shard.ndim != 4 or shard.shape[1] != channels or shard.shape[2] % 2 or shard.shape[3] % 2:
                raise InputError(f"{path} has shape {shard.shape}: features must be [N,{channels},H,W], H and W even")
            if self._shards and shard.shape[1:] != self._shards[0].shape[1:]:
                raise InputError(
                    f"{path} holds maps of shape {shard.shape[1:]}, "
                    f"the shards before it {self._shards[0].shape[1:]}: all must be alike"
                )
            self._shards.append(shard)
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        if not len(self):
            raise InputError(f"{', '.join(map(str, paths))}: the shards hold no feature map")
        for path, shard in zip(paths, self._shards, strict=True):
            for start in range(0, len(shard), _CHUNK):
                if not np.isfinite(shard[start : start + _CHUNK]).all():
                    raise InputError(f"{path} holds NaN or infinity in maps {start} to {start + _CHUNK - 1}")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of every map."""
        _, channels, height, width = self._shards[0].shape
        return channels, height, width

    def gather(self, indices: Iterable[int]) -> Tensor:
        """The maps at these positions: float32 `[len(indices),C,H,W]`."""
        maps = []
        for index in indices:
            shard = int(np.searchsorted(self._starts, index, side="right")) - 1
            maps.append(self._shards[shard][index - self._starts[shard]].astype(np.float32))
        return torch.from_numpy(np.stack(maps))


def find_shards(pattern: str) -> list[Path]:
    """The files that a path or glob names, sorted."""
    return sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 (absolute globs)


def capture_features(
    module: nn.Module, loader: Iterable[Tensor], out: Path, *, maps_per_shard: int = 256
) -> list[Path]:
    """Record what enters the Stage2 inside `module` while `module` runs over `loader`; returns the shards.

    Args:
        module: a network with one `Stage2` (or `QATStage2`) in it, in the mode in which it should run
            (`eval()`, normally).
        loader: batches as `module` takes them.
        out: a folder, made if missing; it gets float16 shards `[N,C,H,W]`.
        maps_per_shard: how many maps a file holds at most.

    Raises:
        ValueError: `module` holds no Stage2 or several, it never ran, or a feature is not finite in float16.
    """
    stages = [part for part in module.modules() if isinstance(part, Stage2)]
    if len(stages) != 1:
        raise InputError(f"the module holds {len(stages)} Stage2: capture_features needs one that has exactly one")
    out.mkdir(parents=True, exist_ok=True)
    pending: list[npt.NDArray[np.float16]] = []
    written: list[Path] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].detach().cpu().numpy().astype(np.float16)
        if not np.isfinite(features).all():
            raise InputError("a feature is not finite in float16 (NaN, infinity or beyond 65504)")
        pending.extend(features)

    def write(count: int) -> None:
        path = out / f"features-{len(written):05d}.npy"
        np.save(path, np.stack(pending[:count]))
        written.append(path)
        del pending[:count]

    handle = stages[0].register_forward_pre_hook(record)
    try:
        with torch.no_grad():
            for batch in loader:
                module(batch)
                while len(pending) >= maps_per_shard:
                    write(maps_per_shard)
    finally:
        handle.remove()
    if pending:
        write(len(pending))
    if not written:
        raise InputError("nothing was captured: the loader is empty")
    return written
