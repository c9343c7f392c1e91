"""The landmark network from pixels to answer: its int8 finds the marker, and gives the golden codes on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litehrnet_stage2.apps.landmarks.scene import Scene
from litehrnet_stage2.apps.landmarks.whole import convert_landmarks, draw_found, find, scenes
from litehrnet_stage2.reference import golden
from litehrnet_stage2.runtime import Bundle, open_session

SCENES = 6


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landmarks") / "bundle"
    convert_landmarks(folder, targets=["onnx"])
    return folder


@pytest.fixture(scope="module")
def held_out() -> list[Scene]:
    return scenes(SCENES, split="test", seed=5)


def test_it_takes_pixels_and_gives_heat_offset_and_real(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert [(spec.name, spec.kind, spec.shape) for spec in manifest.inputs] == [("image", "pixels", (1, 3, 256, 512))]
    assert [spec.name for spec in manifest.outputs] == ["heat", "offset", "real"]


def test_its_int8_finds_the_marker_in_scenes_of_photographs_it_never_saw(bundle: Path, held_out: list[Scene]) -> None:
    with open_session(bundle, "onnxruntime") as session:
        found = find(session, np.stack([scene.image for scene in held_out]))
    errors_px = np.hypot(*(found[:, :2] - np.stack([scene.shapes[0, :2] for scene in held_out])).T)
    assert np.median(errors_px) < 0.5
    assert np.count_nonzero(errors_px > 2) <= 1


def test_onnx_runtime_gives_the_golden_codes_on_them(bundle: Path, held_out: list[Scene]) -> None:
    codes = (np.stack([scene.image for scene in held_out]).astype(np.int16) - 128).astype(np.int8)
    wanted = golden.evaluate(Bundle.open(bundle).function(), codes)
    with open_session(bundle, "onnxruntime") as session:
        given = session.run_on_codes(codes)
    for output, due in zip(given, wanted.values(), strict=True):
        np.testing.assert_array_equal(output, due)


def test_the_answer_is_drawn_into_a_picture(bundle: Path, tmp_path: Path) -> None:
    assert draw_found(bundle, tmp_path / "found.png") < 2
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size == (1024, 512), "each pixel of the photograph is four"
