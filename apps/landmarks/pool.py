"""A pool of scenes rendered once, on every core, and the cheap augmentation that makes it last.

Rendering costs about 11 ms a scene; a step of the network on a crop costs less. So the pool is drawn ahead,
kept as memory-mapped uint8, and each visit turns it into something new by flips, channel order, inversion,
gamma and gain.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.apps.landmarks import photographs, scene
from litehrnet_stage2.reference.array_files import map_npy, read_npy
from litehrnet_stage2.reference.cache_folder import CacheError, cache_root, private_folder
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.child import keep_children_safe

TRAIN_SEED, TEST_SEED, CHOOSING_SEED = 1, 2, 3
_CHUNK = 64


@dataclass(frozen=True)
class Pool:
    """Scenes of one split: images `[N,3,256,512]` uint8, shapes `[N,MAX_SHAPES,3]` float32 as in `Scene`."""

    images: npt.NDArray[np.uint8]
    shapes: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def scene_cache() -> Path:
    """The folder of scenes that all runs of this user share."""
    return private_folder(cache_root()) / "scenes"


def rendered(
    split: photographs.Split,
    *,
    count: int,
    seed: int,
    folder: Path,
    workers: int = 2,
    say: Callable[[str], None] = lambda _: None,
) -> Pool:
    """The pool of `count` scenes, read from `folder` or drawn into it first.

    Scene `i` depends on `(seed, i)` alone: neither `count` nor `workers` changes it. So the first scenes of a larger
    pool in the same folder serve too. Any number of processes may share a folder.

    Args:
        split: whose photographs the scenes are drawn on.
        count: of scenes; each takes 0.4 MB.
        seed: of the scenes.
        folder: made if missing.
        workers: processes that draw.
        say: is told what is drawn, how large and where, before it is.
    """
    for shapes in sorted(folder.glob(f"{split}-{seed}-*.shapes.npy")):
        if int(shapes.name.removesuffix(".shapes.npy").rpartition("-")[2]) >= count:
            images = shapes.with_name(shapes.name.replace(".shapes.", ".images."))
            return _read(images, shapes, count)
    size_mb = count * 3 * scene.HEIGHT * scene.WIDTH / 1e6
    say(f"drawing {count} scenes on the {split} photographs ({size_mb:.0f} MB) into {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{split}-{seed}-{count}"
    images, shapes = stem.with_suffix(".images.npy"), stem.with_suffix(".shapes.npy")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".drawing-") as beside:
        fresh = Path(beside) / images.name
        drawn = np.lib.format.open_memmap(fresh, "w+", np.uint8, (count, 3, scene.HEIGHT, scene.WIDTH))
        rows = np.empty((count, scene.MAX_SHAPES, 3), np.float32)
        starts = range(0, count, _CHUNK)
        jobs = [(split, seed, start, min(start + _CHUNK, count)) for start in starts]
        keep_children_safe()
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
            for start, (pixels, where) in zip(starts, executor.map(_draw, jobs), strict=True):
                drawn[start : start + len(pixels)] = pixels
                rows[start : start + len(pixels)] = where
        drawn.flush()
        np.save(Path(beside) / shapes.name, rows)
        fresh.replace(images)
        (Path(beside) / shapes.name).replace(shapes)  # last: its presence says that the pool is whole
    return _read(images, shapes, count)


def _read(images: Path, shapes: Path, count: int) -> Pool:
    """The first scenes of those that were drawn once.

    Raises:
        CacheError: they are not whole any more.
    """
    try:
        return Pool(map_npy(images)[:count], read_npy(shapes)[:count])
    except (InputError, OSError) as error:
        raise CacheError(
            f"{error}: delete the folder (`rm -r {shlex.quote(str(images.parent))}`) and run again"
        ) from error


def _draw(
    job: tuple[photographs.Split, int, int, int],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    split, seed, start, stop = job
    sources = photographs.load(split)
    scenes = [scene.render(np.random.default_rng((seed, i)), sources) for i in range(start, stop)]
    return np.stack([s.image for s in scenes]), np.stack([s.shapes for s in scenes])


def crops(
    pool: Pool, rng: np.random.Generator, *, batch: int, height: int, width: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A random augmented batch: images `[batch,3,height,width]` uint8 and shapes in the crop's coordinates.

    Three crops in four contain the marker, the rest lie anywhere. Shapes with a centre outside the crop are
    marked -1 (none).
    """
    images = np.empty((batch, 3, height, width), np.uint8)
    shapes = np.empty((batch, scene.MAX_SHAPES, 3), np.float32)
    for i in range(batch):
        index = int(rng.integers(len(pool)))
        where = pool.shapes[index].copy()
        lows = np.zeros(2)
        highs = np.array([scene.WIDTH - width, scene.HEIGHT - height])
        if rng.random() < 0.75:
            lows = np.clip(where[0, :2] - (width, height) + 4, 0, highs)
            highs = np.clip(where[0, :2] - 4, lows, highs)
        left, top = (int(c) for c in np.rint(rng.uniform(lows, highs)))
        pixels = pool.images[index, :, top : top + height, left : left + width]
        where[:, :2] -= (left, top)
        if rng.random() < 0.5:
            pixels, where[:, 0] = pixels[:, :, ::-1], width - where[:, 0]
        if rng.random() < 0.5:
            pixels, where[:, 1] = pixels[:, ::-1], height - where[:, 1]
        outside = ((where[:, :2] < 0) | (where[:, :2] >= (width, height))).any(axis=1)
        where[outside, 2] = -1
        tones = np.linspace(1, 0, 256) if rng.random() < 0.5 else np.linspace(0, 1, 256)
        tones = tones ** rng.uniform(0.75, 1.33) * rng.uniform(0.8, 1.1)
        table = np.rint(255 * tones.clip(0, 1)).astype(np.uint8)
        images[i] = table[pixels[rng.permutation(3)]]
        shapes[i] = where
    return images, shapes


def batches(pool: Pool, *, batch: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]]:
    """The pool in order, whole images, as it is."""
    for start in range(0, len(pool), batch):
        yield pool.images[start : start + batch], pool.shapes[start : start + batch]
