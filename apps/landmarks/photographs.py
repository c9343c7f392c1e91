"""The photographs that ship inside the scikit-image and scikit-learn wheels, split into train and test.

The split is every third name of the sorted list to the test side, so that nobody chose it by its figures.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "test"]

_SKIMAGE = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png"),
    *("motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
_SKLEARN = ("china.jpg", "flower.jpg")


def names(split: Split) -> tuple[str, ...]:
    """The file names of one side of the split, sorted."""
    ordered = sorted((*_SKIMAGE, *_SKLEARN))
    return tuple(n for i, n in enumerate(ordered) if (i % 3 == 2) == (split == "test"))


def load(split: Split) -> tuple[npt.NDArray[np.uint8], ...]:
    """The photographs of one side, each `[H,W,3]` uint8; grey ones are repeated over the channels.

    Raises:
        FileNotFoundError: a wheel no longer ships one of the files.
    """
    from PIL import Image

    loaded = []
    for name in names(split):
        folder = files("sklearn") / "datasets" / "images" if name in _SKLEARN else files("skimage") / "data"
        with as_file(folder / name) as path, Image.open(path) as image:
            loaded.append(np.asarray(image.convert("RGB")))
    return tuple(loaded)
