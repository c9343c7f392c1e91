"""One image of the task: a photograph with one notched disc in it, and often others that resemble it.

Coordinates are continuous pixels: pixel `i` covers `[i, i+1)`, so a centre at 10.5 is the middle of pixel 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litehrnet_stage2.runtime.program import Floats

HEIGHT, WIDTH = 256, 512
MAX_SHAPES = 4
RADIUS_PX = (8.0, 16.0)
CONTRAST = (0.35, 1.0)
BLUR_PX = (0.0, 1.2)
NOISE = (0.0, 0.04)
OCCLUDED_SHARE = 0.5
OCCLUSION_DEPTH = (0.1, 0.3)  # of the diameter
DECOY_SHARE = 2 / 3  # of the images
_NOTCH_WIDTH, _NOTCH_DEPTH = 0.6, 0.75  # of the radius
_RIM = 0.16  # of the radius, outside the outline
_MARGIN_PX = 20.0
_EMPTY, _DECOY, _REAL = -1.0, 0.0, 1.0


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: `[3,256,512]` uint8.
        shapes: `[MAX_SHAPES,3]` rows of x in px, y in px, kind: 1 the marker (always row 0), 0 a decoy,
            -1 none.
    """

    image: npt.NDArray[np.uint8]
    shapes: Floats


def render(rng: np.random.Generator, photographs: Sequence[npt.NDArray[np.uint8]]) -> Scene:
    """Draw one scene. The same generator state gives the same bytes."""
    from scipy.ndimage import gaussian_filter

    image = _background(rng, photographs)
    backdrop = image.copy()
    shapes = np.full((MAX_SHAPES, 3), _EMPTY, np.float32)
    count = 1 + (int(rng.integers(1, MAX_SHAPES)) if rng.random() < DECOY_SHARE else 0)
    radii = rng.uniform(*RADIUS_PX, size=count)
    for row, (x, y) in enumerate(_centres(rng, radii)):
        outline = _marker if row == 0 else _DECOYS[int(rng.integers(len(_DECOYS)))]
        draw_shape(rng, image, backdrop, outline, x, y, radii[row])
        shapes[row] = x, y, _REAL if row == 0 else _DECOY
    sigma = rng.uniform(*BLUR_PX)
    image = gaussian_filter(image, (sigma, sigma, 0), truncate=3.0)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(*NOISE))
    codes = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Scene(np.ascontiguousarray(codes.transpose(2, 0, 1)), shapes)


def _background(rng: np.random.Generator, photographs: Sequence[npt.NDArray[np.uint8]]) -> Floats:
    """A crop of 1/2 to the whole of a photograph, flipped and turned at random: `[256,512,3]` in [0,1]."""
    from PIL import Image

    photograph = np.rot90(photographs[int(rng.integers(len(photographs)))], int(rng.integers(4)))
    if rng.random() < 0.5:
        photograph = photograph[:, ::-1]
    height, width = photograph.shape[:2]
    crop_width = min(width, height * WIDTH / HEIGHT) * rng.uniform(0.5, 1.0)
    crop_height = crop_width * HEIGHT / WIDTH
    left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    resized = Image.fromarray(np.ascontiguousarray(photograph)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box)
    return np.asarray(resized, np.float32) / np.float32(255)


def _centres(rng: np.random.Generator, radii: npt.NDArray[np.float64]) -> list[tuple[float, float]]:
    """Positions that keep the discs apart and wholly inside the image."""
    centres: list[tuple[float, float]] = []
    for radius in radii:
        reach = radius * (1 + _RIM)
        while True:
            x, y = rng.uniform(_MARGIN_PX, WIDTH - _MARGIN_PX), rng.uniform(_MARGIN_PX, HEIGHT - _MARGIN_PX)
            apart = (
                np.hypot(x - u, y - v) > reach + r * (1 + _RIM) + 2 for (u, v), r in zip(centres, radii, strict=False)
            )
            if all(apart):
                centres.append((x, y))
                break
    return centres


def draw_shape(
    rng: np.random.Generator,
    image: Floats,
    backdrop: Floats,
    outline: Callable[[Floats, Floats], Floats],
    x: float,
    y: float,
    radius: float,
) -> None:
    """Blend one shape into `image` and maybe cover a part of it.

    It is dark with a light rim on a light surrounding, or the reverse.
    """
    reach = int(radius * 1.5) + 2
    left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
    patch = image[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.indices(patch.shape[:2], np.float32)
    dx, dy = (columns + np.float32(left + 0.5 - x)) / radius, (rows + np.float32(top + 0.5 - y)) / radius
    turn = rng.uniform(0, 2 * np.pi)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)

    distance = outline(u, v)
    body, whole = _coverage(distance, radius), _coverage(distance - np.float32(_RIM), radius)
    light, dark = rng.uniform(0.88, 1.0, 3).astype(np.float32), rng.uniform(0.0, 0.12, 3).astype(np.float32)
    ink, rim = (light, dark) if patch[u * u + v * v < 1.4].mean() < 0.5 else (dark, light)
    tone = rim + body[..., None] * (ink - rim)  # two tones: one alone would vanish on half of a busy surrounding
    patch += (whole * np.float32(rng.uniform(*CONTRAST)))[..., None] * (tone - patch)

    if rng.random() < OCCLUDED_SHARE:  # never over the notch at angle 0: without it, marker and decoy are the same
        angle, depth = rng.uniform(0.4 * np.pi, 1.6 * np.pi), 2 * rng.uniform(*OCCLUSION_DEPTH)
        along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        cover = _coverage(np.maximum(np.maximum(1 - depth - along, along - 1.3), np.abs(across) - 1.2), radius)
        height, width = patch.shape[:2]
        row, column = rng.integers(0, HEIGHT - height), rng.integers(0, WIDTH - width)
        patch += cover[..., None] * (backdrop[row : row + height, column : column + width] - patch)


def _coverage(distance: Floats, radius: float) -> Floats:
    """Anti-aliased coverage from a signed distance in radii (negative inside)."""
    covered: Floats = np.clip(np.float32(0.5) - distance * np.float32(radius), 0, 1).astype(np.float32)
    return covered


def disc(u: Floats, v: Floats) -> Floats:
    """How far a place in the units of the radius is outside of a disc."""
    distance: Floats = np.hypot(u, v) - 1
    return distance


def _notch(u: Floats, v: Floats) -> Floats:
    notch: Floats = np.maximum(np.abs(v) - _NOTCH_WIDTH / 2, 1 - _NOTCH_DEPTH - u)
    return notch


def _marker(u: Floats, v: Floats) -> Floats:
    return np.maximum(disc(u, v), -_notch(u, v))


def _two_notches(u: Floats, v: Floats) -> Floats:
    return np.maximum(_marker(u, v), -_notch(-u, v))


def _three_notches(u: Floats, v: Floats) -> Floats:
    half, side = np.float32(0.5), np.float32(0.75**0.5)
    second, third = _notch(side * v - half * u, -side * u - half * v), _notch(-half * u - side * v, side * u - half * v)
    return np.maximum(np.maximum(_marker(u, v), -second), -third)


def _ring(u: Floats, v: Floats) -> Floats:
    return np.maximum(disc(u, v), 0.4 - np.hypot(u, v))


def _notched_square(u: Floats, v: Floats) -> Floats:
    square: Floats = np.maximum(np.abs(u), np.abs(v)) - np.float32(0.9)
    return np.maximum(square, -_notch(u, v))


_DECOYS = (disc, _two_notches, _three_notches, _ring, _notched_square)
