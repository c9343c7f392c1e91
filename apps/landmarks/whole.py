"""The landmark network from pixels to answer, as one integer function: converted, and run on a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.apps.landmarks import photographs
from litehrnet_stage2.apps.landmarks.decoding import locate
from litehrnet_stage2.reference.contract.artifacts import DEFAULT_TARGETS
from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.runtime.program import Floats

if TYPE_CHECKING:
    from litehrnet_stage2.apps.landmarks.scene import Scene
    from litehrnet_stage2.reference.contract.manifest import Manifest
    from litehrnet_stage2.runtime.session import Session


def scenes(count: int, *, split: photographs.Split, seed: int) -> list[Scene]:
    """Scenes rendered from the photographs of a split."""
    from litehrnet_stage2.apps.landmarks.scene import render

    rng, pictures = np.random.default_rng(seed), photographs.load(split)
    return [render(rng, pictures) for _ in range(count)]


def convert_landmarks(out: Path, *, targets: Sequence[str] = DEFAULT_TARGETS, progress: Progress = silent) -> Manifest:
    """Convert the shipped, tuned network: `image`, pixels uint8 `[1,3,256,512]`, to `heat`, `offset` and `real`."""
    from litehrnet_stage2.apps.convert_network import GOLDEN_IMAGES, convert_network
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_whole, quantized_network

    progress("rendering scenes for golden inputs")
    images = np.stack([scene.image for scene in scenes(GOLDEN_IMAGES, split="train", seed=0)])
    teacher = quantized_network(SHIPPED)
    return convert_network(load_whole(SHIPPED), out, images, teacher=teacher, targets=targets, progress=progress)


def find(session: Session, images: npt.NDArray[np.uint8]) -> Floats:
    """The centres float32 `[B,2]` (x, y in px) in images uint8 `[B,3,256,512]`, by an artifact of the whole network."""
    found = dict(zip((spec.name for spec in session.info.outputs), session.run(images), strict=True))
    return locate(found["heat"][:, 0], found["offset"], found["real"][:, 0])


def draw_found(bundle: Path, picture: Path, *, runtime: str = "onnxruntime") -> float:
    """Find the marker in a held-out photograph, write the picture with the answer, and give the error in px."""
    from litehrnet_stage2.apps.landmarks.drawing import draw_answer
    from litehrnet_stage2.runtime import open_session

    (scene,) = scenes(1, split="test", seed=3)
    with open_session(bundle, runtime) as session:
        (found,) = find(session, scene.image[None])
    x, y = (float(value) for value in scene.shapes[0, :2])
    draw_answer(scene.image, (float(found[0]), float(found[1])), picture, true=(x, y))
    return float(np.hypot(found[0] - x, found[1] - y))
