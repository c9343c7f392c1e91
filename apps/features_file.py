"""Features in `.npy` files, as a user brings them: one file, a folder of them, or a pattern (numpy only)."""

from __future__ import annotations

import glob
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.array_files import ArrayFileError, map_npy
from litehrnet_stage2.reference.errors import InputError

_CAPTURE = "record what enters your Stage2 with `capture_features(network, batches, Path('shards'))`"


def find_features(where: str | Path) -> list[Path]:
    """`find_arrays` of features.

    Raises:
        InputError: there are none.
    """
    try:
        return find_arrays(where)
    except InputError as error:
        raise InputError(f"{error}; {_CAPTURE}") from error


def find_arrays(where: str | Path) -> list[Path]:
    """The `.npy` files that a file, a folder or a glob names, sorted; a path that exists is never a pattern.

    Raises:
        InputError: it names none.
    """
    path = Path(where)
    if path.is_dir():
        found = sorted(path.glob("[!.]*.npy"))  # `._x.npy` is what macOS leaves
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(where), recursive=True))  # noqa: PTH207 (absolute globs)
    if not found:
        what = "no .npy file in the folder" if path.is_dir() else "no file"
        raise InputError(f"{what} {where}: give a .npy, a folder of them or a quoted pattern")
    return found


def map_features(path: Path, channels: int) -> NDArray[Any]:
    """Features `[N, channels, H, W]` of float16, float32 or float64, mapped into memory; values are not checked.

    Raises:
        InputError: not an array, or of a wrong shape or dtype; the message names the mistake.
    """
    if path.suffix in (".pt", ".pth"):
        raise InputError(
            f"{path} is PyTorch's, which is not read here: load it yourself and write "
            f"np.save({path.stem + '.npy'!r}, features.float().numpy())"
        )
    try:
        array = map_npy(path)
    except ArrayFileError as error:
        if zipfile.is_zipfile(path):
            raise InputError(
                f"{path} is an .npz: give the one array in it that holds the features, as a .npy"
            ) from error
        raise
    if array.ndim != 4 or array.shape[1] != channels or not array.size:
        hint = ""
        if array.ndim == 4 and array.shape[3] == channels:
            hint = f", its channels last: write np.save({path.name!r}, features.transpose(0, 3, 1, 2))"
        elif array.ndim == 4 and 3 in (array.shape[1], array.shape[3]):
            hint = f", which looks like images: {_CAPTURE}"
        raise InputError(
            f"{path} must hold features of shape [N,{channels},H,W], N >= 1, but has shape {list(array.shape)}{hint}"
        )
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{path} must hold float16, float32 or float64, but holds {array.dtype}")
    return array


def load_features(where: str | Path, channels: int, *, most: int | None = None) -> NDArray[np.float32]:
    """Features float32 `[N, channels, H, W]` of what `find_features` finds; `most` of them, evenly spread, if given.

    Raises:
        InputError: no such file, as `map_features`, maps of several sizes, or a value that is not finite.
    """
    paths = find_features(where)
    arrays = [map_features(path, channels) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise InputError(
                f"{path} holds maps of shape {array.shape[1:]}, the ones before it {arrays[0].shape[1:]}: "
                "all must be alike"
            )
    starts = np.cumsum([0, *(len(array) for array in arrays)])
    count = int(starts[-1])
    chosen = np.unique(np.linspace(0, count - 1, min(count, most or count)).astype(np.int64))
    parts = []
    for path, array, start in zip(paths, arrays, starts[:-1], strict=True):
        inside = chosen[(chosen >= start) & (chosen < start + len(array))] - start
        with np.errstate(over="ignore"):
            part = np.asarray(array[inside]).astype(np.float32)
        if not np.isfinite(part).all():
            raise InputError(f"{path} holds values that are NaN, infinite or too large for float32: all must be finite")
        parts.append(part)
    features: NDArray[np.float32] = np.concatenate(parts)
    return features
