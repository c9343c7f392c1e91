"""What the project ships to run on: weights, and real photographs turned into features by the example stem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from litehrnet_stage2.reference.stage2 import Stage2

IMAGE_SIZE = (256, 512)


def model() -> Stage2:
    """The network that is converted when no checkpoint is given."""
    import torch

    from litehrnet_stage2.reference.stage2 import Stage2

    torch.manual_seed(0)
    return Stage2().eval()


def features(count: int) -> NDArray[np.float32]:
    """Features float32 `[count,32,64,128]` of crops from photographs.

    Raises:
        ImportError: scikit-image, scikit-learn or torch is not installed.
    """
    import torch

    from litehrnet_stage2.apps.landmarks import photographs
    from litehrnet_stage2.apps.landmarks.network import Stem

    height, width = IMAGE_SIZE
    rng = np.random.default_rng(0)
    large = [p for p in photographs.load("train") if p.shape[0] >= height and p.shape[1] >= width]
    crops = []
    for index in range(count):
        photograph = large[index % len(large)]
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(photograph.shape, IMAGE_SIZE, strict=False))
        crops.append(photograph[top : top + height, left : left + width])
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    torch.manual_seed(0)
    with torch.no_grad():
        result: NDArray[np.float32] = Stem().eval()(images).numpy()
    return result
