"""Draw the answer on the photograph: a cross at each centre."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.reference.errors import InputError

ARM_PX = 14
GAP_PX = 4
FOUND = (0, 230, 80)
TRUE = (255, 190, 0)


def draw_answer(
    image: npt.NDArray[np.uint8],
    found: tuple[float, float],
    path: Path,
    *,
    true: tuple[float, float] | None = None,
    scale: int = 2,
) -> None:
    """Write the photograph with a green cross at the centre that was found, as PNG.

    Args:
        image: `[3,H,W]` uint8.
        found: x and y in px of `image`.
        path: of the PNG; an older one is replaced.
        true: where the centre is, if it is known: an orange circle.
        scale: the picture is this many times as large as the image, so that a part of a pixel can be seen.

    Raises:
        InputError: the image has another shape or dtype.
    """
    from PIL import Image, ImageDraw

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
        raise InputError(f"the image is {image.dtype} {list(image.shape)}: drawing needs uint8 [3,H,W]")
    _, height, width = image.shape
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    if true is not None:
        x, y, reach = true[0] * scale, true[1] * scale, ARM_PX * scale
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=TRUE, width=scale)
    x, y = found[0] * scale, found[1] * scale
    for along_x, along_y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        near, far = GAP_PX * scale, ARM_PX * scale
        line = (x + along_x * near, y + along_y * near, x + along_x * far, y + along_y * far)
        pen.line(line, fill=FOUND, width=scale)
    picture.save(path, format="PNG")
