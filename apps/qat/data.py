"""Gives `stage2 qat` its features: recorded shards, or the landmark task's own stem.

A batch is a function of the seed and the step alone, whatever the number of ranks: a run that was cut goes on
with the batches it would have seen, and two ranks see between them what one would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.landmarks.decoding import STRIDE_PX
from litehrnet_stage2.apps.landmarks.landmark_net import Prediction
from litehrnet_stage2.apps.landmarks.loss import answer_loss, task_loss
from litehrnet_stage2.apps.landmarks.pool import CHOOSING_SEED, TRAIN_SEED, Pool, crops, rendered, scene_cache
from litehrnet_stage2.apps.qat.features import Shards
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.reference.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Features `[B,C,h,w]` float32, or pixels uint8, and `labels` for the task's loss where the source has a task."""

    features: Tensor
    labels: Tensor | None = None


class Source(Protocol):
    """Batches for training, whole maps for calibration and for the figures."""

    @property
    def fingerprint(self) -> str:
        """Says which data this is, so that a resumed run can tell."""

    def batch(self, step: int, *, rank: int, ranks: int) -> Batch:
        """This rank's share of the batch of `step`."""

    def calibration(self) -> Tensor:
        """Whole maps `[n,C,H,W]` to set the ranges from; the same on every rank."""

    def held_out(self) -> Batch:
        """Whole maps that training never sees."""

    def task_loss(self, outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The task's own scalar loss, from the student's outputs."""

    def answer_loss(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """How far the answer that is read from the student's outputs is from the teacher's, a scalar."""


class ShardSource:
    """Recorded features, or inputs of a network; the last `held_out_maps` of them are kept out of training.

    Args:
        shards: of them.
        config: `crop_cells` among others.
        stride: how many positions of a map, each way, one cell of 1/4 resolution is: 1 of features, 4 of images.

    Raises:
        ValueError: too few maps for the held-out ones and a batch, or a crop larger than the maps.
    """

    def __init__(self, shards: Shards, config: QatConfig, *, stride: int = 1) -> None:
        self._shards, self._config, self._side = shards, config, stride * config.crop_cells
        self._count = len(shards) - config.held_out_maps
        if self._count < 1:
            raise InputError(
                f"{len(shards)} maps are too few: `held_out_maps` (={config.held_out_maps}) of them "
                "are kept out of training; record more or lower it"
            )
        _, height, width = shards.map_shape
        if self._side > min(height, width):
            raise InputError(
                f"`crop_cells` (={config.crop_cells}) asks for crops of {self._side}x{self._side}, and the maps are "
                f"{height}x{width}: lower it, or --set crop_cells=0 for whole maps"
            )

    @property
    def fingerprint(self) -> str:
        """Count and shape of the maps, and the sum of the first."""
        first = float(self._shards.gather([0]).double().sum())
        return f"{len(self._shards)} maps {self._shards.map_shape}, the first sums to {first}"

    def batch(self, step: int, *, rank: int, ranks: int) -> Batch:
        """Maps drawn with replacement, each cropped at an even offset."""
        config, size = self._config, self._side
        rng = np.random.default_rng((config.seed, step))
        _, height, width = self._shards.map_shape
        indices = rng.integers(self._count, size=config.batch)
        tops = 2 * rng.integers((height - size) // 2 + 1, size=config.batch)
        lefts = 2 * rng.integers((width - size) // 2 + 1, size=config.batch)
        share = slice(rank, None, ranks)
        maps = self._shards.gather(indices[share])
        if not size:
            return Batch(maps)
        return Batch(
            torch.stack(
                [m[:, t : t + size, x : x + size] for m, t, x in zip(maps, tops[share], lefts[share], strict=True)]
            )
        )

    def calibration(self) -> Tensor:
        """Training maps, evenly spread."""
        return self._shards.gather(_spread(self._count, self._config.calibration_maps))

    def held_out(self) -> Batch:
        """The last maps."""
        return Batch(self._shards.gather(range(self._count, len(self._shards))))

    def task_loss(self, outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Shards carry no labels, so this is never asked."""
        raise NotImplementedError("feature shards have no task")

    def answer_loss(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """What is read from the outputs is not known either."""
        raise InputError("`answer_weight` goes with task 'landmarks': what is read from recorded features is not known")


class LandmarkSource:
    """Scenes of the landmark task through its frozen float stem; the task's loss through its frozen heads."""

    def __init__(self, pool: Pool, held_out: Pool, stem: nn.Module, heads: nn.Module, config: QatConfig) -> None:
        self._pool, self._held_out, self._config = pool, held_out, config
        self._stem, self._heads = _frozen(stem), _frozen(heads)

    @classmethod
    def rendered(
        cls, stem: nn.Module, heads: nn.Module, config: QatConfig, *, cache: Path | None, say: Callable[[str], None]
    ) -> LandmarkSource:
        """Scenes from `cache` (default: the folder that all runs share), drawn first where they are not there.

        The held-out ones are on the held-out photographs, and are none of those that reports are made with.
        """
        folder = cache or scene_cache()
        pool = rendered("train", count=config.scenes, seed=TRAIN_SEED, folder=folder, say=say)
        held_out = rendered("test", count=config.held_out_maps, seed=CHOOSING_SEED, folder=folder, say=say)
        return cls(pool, held_out, stem, heads, config)

    @property
    def fingerprint(self) -> str:
        """Count of scenes and the position of the first marker."""
        return f"{len(self._pool)} scenes, first {self._pool.shapes[0, 0].tolist()}"

    def batch(self, step: int, *, rank: int, ranks: int) -> Batch:
        """Augmented crops, through the stem; whole augmented scenes if `crop_cells` is 0."""
        config = self._config
        side = config.crop_cells * STRIDE_PX
        height, width = (side, side) if side else self._pool.images.shape[2:]
        rng = np.random.default_rng((config.seed, step))
        images, shapes = crops(self._pool, rng, batch=config.batch, height=height, width=width)
        share = slice(rank, None, ranks)
        return Batch(self._features(images[share]), torch.from_numpy(shapes[share]))

    def calibration(self) -> Tensor:
        """Features of training scenes, evenly spread."""
        return self._features(self._pool.images[_spread(len(self._pool), self._config.calibration_maps)])

    def held_out(self) -> Batch:
        """Features of scenes from the held-out photographs."""
        count = self._config.held_out_maps
        return Batch(self._features(self._held_out.images[:count]), torch.from_numpy(self._held_out.shapes[:count]))

    def task_loss(self, outputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Heat, offset and kind, as in the float training."""
        device = outputs[0].device
        return task_loss(self._heads.to(device)(*outputs), labels.to(device))

    def answer_loss(self, outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """The offsets, where the teacher sees the centre."""
        heads = self._heads.to(outputs[0].device)
        return answer_loss(heads(*outputs), heads(*wanted))

    @torch.no_grad()
    def _features(self, images: npt.NDArray[np.uint8]) -> Tensor:
        parts = [
            self._stem(torch.from_numpy(part.copy()).float() / 255) for part in np.array_split(images, _parts(images))
        ]
        return torch.cat(parts)


class WholeNetwork(nn.Module):
    """In the place of the heads where the whole network is tuned: its outputs are the answer already."""

    def forward(self, heat: Tensor, offset: Tensor, real: Tensor) -> Prediction:
        """Take the channel of one off `heat` and `real`."""
        return Prediction(heat=heat[:, 0], offset=offset, real=real[:, 0])


def _parts(images: npt.NDArray[np.uint8]) -> int:
    """Enough pieces to keep a stem's activations small."""
    return max(1, images.size // (16 * 3 * 256 * 512))


def _spread(count: int, wanted: int) -> npt.NDArray[np.int64]:
    """At most `wanted` positions below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def _frozen(part: nn.Module) -> nn.Module:
    return part.eval().requires_grad_(False)
