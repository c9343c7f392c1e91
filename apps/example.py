"""The project ships something to run on: trained weights, and real photographs turned into features by their stem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SIZE = (256, 512)


def checkpoint() -> Path:
    """The fine-tuned network that is converted when no checkpoint is given."""
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED

    return SHIPPED / "int8.safetensors"


def ships(checkpoint: Path) -> bool:
    """Whether a checkpoint is one of the example network's, for which `features` are right."""
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED

    return checkpoint.resolve().parent == SHIPPED.resolve()


def features(count: int) -> NDArray[np.float32]:
    """Features float32 `[count,32,64,128]` of crops from photographs.

    Raises:
        ImportError: scikit-image, scikit-learn or torch is not installed.
    """
    import torch

    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_stem_and_heads

    stem, _ = load_stem_and_heads(SHIPPED / "landmarks.safetensors")
    with torch.no_grad():
        result: NDArray[np.float32] = stem(crops(count)).numpy()
    return result


def crops(count: int) -> Tensor:
    """Images float32 `[count,3,256,512]` in [0,1], cut from the photographs at seeded places."""
    import torch

    from litehrnet_stage2.apps.landmarks import photographs

    height, width = IMAGE_SIZE
    rng = np.random.default_rng(0)
    large = [p for p in photographs.load("train") if p.shape[0] >= height and p.shape[1] >= width]
    crops = []
    for index in range(count):
        photograph = large[index % len(large)]
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(photograph.shape, IMAGE_SIZE, strict=False))
        crops.append(photograph[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
