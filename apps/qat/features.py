"""Feature shards: what a network's own stage 1 sends into Stage2, recorded once and read memory-mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.features_file import map_features
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.quantizers import ActivationQuantizer, Mode, set_mode
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.reference.tracing import evaluating

_CHUNK = 64  # maps read at once
_SHARD = "features"
_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_normal) * 2**8  # so that 1/256 of the largest value is normal


class Shards:
    """Maps `[N,C,H,W]` of any number of arrays, as one sequence; `C`, `H`, `W` are the same in all.

    Args:
        arrays: mapped into memory or not.
        taken: makes of an array what `gather` gives.
    """

    def __init__(
        self, arrays: Sequence[npt.NDArray[Any]], taken: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> None:
        self._shards, self._taken = list(arrays), taken
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of every map."""
        _, channels, height, width = self._shards[0].shape
        return channels, height, width

    def gather(self, indices: Iterable[int]) -> Tensor:
        """The maps at these positions: `[len(indices),C,H,W]`."""
        maps = []
        for index in indices:
            shard = int(np.searchsorted(self._starts, index, side="right")) - 1
            maps.append(self._taken(self._shards[shard][index - self._starts[shard]]))
        return torch.from_numpy(np.stack(maps))


class FeatureShards(Shards):
    """Feature maps of any number of `.npy` files, which `gather` gives as float32.

    Each file holds `[N,C,H,W]` of a float dtype.

    Raises:
        ValueError: an empty file, a wrong rank, channel count, size or dtype, or a value that is
            not finite. Everything is checked here, before any training starts.
    """

    def __init__(self, paths: Sequence[Path], *, channels: int) -> None:
        shards: list[npt.NDArray[np.floating]] = []
        for path in paths:
            shard = map_features(path, channels)
            if shard.shape[2] % 2 or shard.shape[3] % 2:
                raise InputError(f"{path} has shape {shard.shape}: features must be [N,{channels},H,W], H and W even")
            if shards and shard.shape[1:] != shards[0].shape[1:]:
                raise InputError(
                    f"{path} holds maps of shape {shard.shape[1:]}, "
                    f"the shards before it {shards[0].shape[1:]}: all must be alike"
                )
            shards.append(shard)
        for path, shard in zip(paths, shards, strict=True):
            for start in range(0, len(shard), _CHUNK):
                if not np.isfinite(shard[start : start + _CHUNK]).all():
                    raise InputError(f"{path} holds NaN or infinity in maps {start} to {start + _CHUNK - 1}")
        super().__init__(shards, lambda array: array.astype(np.float32))


def capture_features(module: nn.Module, loader: Iterable[Any], out: Path, *, maps_per_shard: int = 256) -> list[Path]:
    """Record what enters the Stage2 inside `module` while `module` runs over `loader`; returns the shards.

    The network runs in eval mode, whatever mode its parts are in, and is as it was afterwards. Shards of an earlier
    capture in `out` are removed before the first is written.

    Args:
        module: a network with one `Stage2` (or `QATStage2`) in it, of any float dtype.
        loader: batches as `module` takes them.
        out: a folder, made if missing; it gets shards `[N,C,H,W]`, float16 where that holds the values.
        maps_per_shard: how many maps a file holds at most.

    Raises:
        InputError: `module` holds no Stage2 or several, it never ran, a batch is a tuple, or a feature is not finite.
    """
    stages = [part for part in module.modules() if isinstance(part, Stage2)]
    if len(stages) != 1:
        raise InputError(f"the module holds {len(stages)} Stage2: capture_features needs one that has exactly one")
    out.mkdir(parents=True, exist_ok=True)
    pending: list[npt.NDArray[np.float32]] = []
    written: list[Path] = []
    batches = 0

    def record(_: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        features = (inputs[0] if inputs else keywords["features"]).detach().float().cpu().numpy()
        if not np.isfinite(features).all():
            raise InputError("a feature is NaN or infinite: look for it in the images and in the network before Stage2")
        pending.extend(features)

    def write(count: int) -> None:
        if not written:
            for earlier in out.glob(f"{_SHARD}-[0-9][0-9][0-9][0-9][0-9].npy"):
                earlier.unlink()
        path = out / f"{_SHARD}-{len(written):05d}.npy"
        np.save(path, _compact(np.stack(pending[:count])))
        written.append(path)
        del pending[:count]

    handle = stages[0].register_forward_pre_hook(record, with_kwargs=True)
    try:
        with _at_rest(module), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for batch in loader:
                batches += 1
                if isinstance(batch, (tuple, list)) and isinstance(batch[0], Tensor) and batch[0].ndim == 4:
                    raise InputError(
                        f"the loader yields a {type(batch).__name__} of {len(batch)}, and a network takes the images "
                        "alone: write capture_features(network, (images for images, *_ in loader), out)"
                    )
                module(batch)
                while len(pending) >= maps_per_shard:
                    write(maps_per_shard)
    finally:
        handle.remove()
    if pending:
        write(len(pending))
    if not written:
        reason = f"the network ran {batches} batches, but not its Stage2" if batches else "the loader is empty"
        raise InputError(f"nothing was captured: {reason}")
    return written


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Everything in `module` in eval mode and no quantiser recording; all as it was afterwards."""
    modes = {part: part.mode for part in module.modules() if isinstance(part, ActivationQuantizer)}
    set_mode(module, Mode.FLOAT)
    try:
        with evaluating(module):
            yield
    finally:
        for quantizer, before in modes.items():
            quantizer.mode = before


def _compact(features: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
    """As float16, unless that would lose more than an int8 code can tell."""
    largest = float(np.abs(features).max())
    return features.astype(np.float16) if _SMALLEST <= largest <= _LARGEST else features
