"""Features in a `.npy` file, as a user brings them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.array_files import ArrayFileError, read_npy
from litehrnet_stage2.reference.errors import InputError


def load_features(path: Path, channels: int) -> NDArray[np.float32]:
    """Features float32 `[N, channels, H, W]` from a `.npy` of float16, float32 or float64.

    Raises:
        ValueError: no such file, not an array, a wrong shape or dtype, no entries, or a value that is not finite.
    """
    if not path.is_file():
        raise InputError(f"no file {path}: give a .npy of features, float32 [N,{channels},H,W]")
    try:
        array = read_npy(path)
    except ArrayFileError as error:
        if zipfile.is_zipfile(path):
            raise InputError(
                f"{path} is an .npz: give the one array in it that holds the features, as a .npy"
            ) from error
        raise
    if array.ndim != 4 or array.shape[1] != channels or not array.size:
        shape = list(array.shape)
        raise InputError(f"{path} must hold features of shape [N,{channels},H,W], N >= 1, but has shape {shape}")
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{path} must hold float16, float32 or float64, but holds {array.dtype}")
    with np.errstate(over="ignore"):
        features = array.astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError(f"{path} holds values that are NaN, infinite or too large for float32: all must be finite")
    return features
