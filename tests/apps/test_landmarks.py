"""The example task: its scenes are what they are said to be, and its network can learn them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from litehrnet_stage2.apps.landmarks import photographs, scene
from litehrnet_stage2.apps.landmarks.decoding import locate, named_marker
from litehrnet_stage2.apps.landmarks.drawing import FOUND, draw_answer
from litehrnet_stage2.apps.landmarks.landmark_net import LandmarkNet, Prediction
from litehrnet_stage2.apps.landmarks.loss import answer_loss, task_loss
from litehrnet_stage2.apps.landmarks.metrics import task_metrics
from litehrnet_stage2.apps.landmarks.pool import Pool, crops, rendered
from litehrnet_stage2.apps.landmarks.train import TrainSettings, learning_rate_factor, train
from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_network, save_network
from litehrnet_stage2.apps.qat import data
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.reference.cache_folder import CacheError


def _photographs() -> tuple[np.ndarray, ...]:
    return photographs.load("test")[:2]


def test_train_and_test_photographs_are_disjoint_and_all_ship_with_the_wheels() -> None:
    train_names, test_names = photographs.names("train"), photographs.names("test")
    assert not set(train_names) & set(test_names)
    assert len(train_names) == 14
    assert len(test_names) == 6
    assert all(p.dtype == np.uint8 and p.ndim == 3 for p in photographs.load("test"))


def test_a_scene_depends_on_its_seed_alone() -> None:
    sources = _photographs()
    first, again, other = (scene.render(np.random.default_rng(seed), sources) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.shapes, again.shapes)
    assert not np.array_equal(first.image, other.image)


def test_every_scene_has_one_marker_and_two_in_three_have_decoys() -> None:
    sources = _photographs()
    shapes = np.stack([scene.render(np.random.default_rng((3, i)), sources).shapes for i in range(120)])
    assert (shapes[:, 0, 2] == 1).all()
    assert (shapes[:, 1:, 2] != 1).all()
    assert 0.5 < (shapes[:, 1, 2] == 0).mean() < 0.83
    there = shapes[shapes[:, :, 2] >= 0]
    assert (there[:, :2] > scene.RADIUS_PX[1]).all()
    assert (there[:, :2] < np.array([scene.WIDTH, scene.HEIGHT]) - scene.RADIUS_PX[1]).all()


def test_the_hard_conditions_are_those_promised() -> None:
    assert scene.CONTRAST == (0.35, 1.0)
    assert scene.BLUR_PX == (0.0, 1.2)
    assert scene.NOISE == (0.0, 0.04)
    assert scene.DECOY_SHARE == 2 / 3


@pytest.mark.parametrize(("x", "y"), [(40.0, 50.0), (40.25, 50.75), (41.5, 49.9)])
def test_a_shape_is_drawn_where_it_is_said_to_be(x: float, y: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "OCCLUDED_SHARE", 0.0)
    image = np.full((100, 100, 3), 0.4, np.float32)
    scene.draw_shape(np.random.default_rng(0), image, image.copy(), scene.disc, x, y, 10.0)
    weight = np.abs(image - 0.4).sum(axis=2)
    rows, columns = np.indices(weight.shape) + 0.5
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=0.05)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.05)


def test_the_pool_is_drawn_once_and_scene_i_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = rendered("test", count=3, seed=9, folder=tmp_path, workers=1)
    written = (tmp_path / "test-9-3.images.npy").stat().st_mtime_ns
    more = rendered("test", count=5, seed=9, folder=tmp_path, workers=2)
    again = rendered("test", count=3, seed=9, folder=tmp_path, workers=1)
    assert (tmp_path / "test-9-3.images.npy").stat().st_mtime_ns == written
    assert np.array_equal(few.images, more.images[:3])
    assert np.array_equal(few.images, again.images)
    assert np.array_equal(few.shapes, again.shapes)


def test_the_first_scenes_of_a_larger_pool_serve_and_what_is_drawn_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    larger = rendered("test", count=3, seed=9, folder=tmp_path, workers=1, say=said.append)
    assert said == [f"drawing 3 scenes on the test photographs (1 MB) into {tmp_path}"]
    first = rendered("test", count=2, seed=9, folder=tmp_path, workers=1, say=said.append)
    assert np.array_equal(first.images, larger.images[:2])
    assert len(said) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"test-9-3.images.npy", "test-9-3.shapes.npy"}


def test_runs_share_the_scenes_that_one_of_them_drew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache, and not in the folder of a run; two of them draw the same ones once, as is shown above."""
    monkeypatch.setenv("LITEHRNET_STAGE2_CACHE", str(tmp_path / "cache"))
    asked: list[tuple[str, int, Path]] = []

    def note(split: str, *, count: int, seed: int, folder: Path, say: object) -> Pool:
        asked.append((split, count, folder))
        return Pool(np.zeros((count, 3, 8, 8), np.uint8), np.zeros((count, 8, 3), np.float32))

    monkeypatch.setattr(data, "rendered", note)
    config = QatConfig(task="landmarks", scenes=5, held_out_maps=2)
    data.LandmarkSource.rendered(nn.Identity(), nn.Identity(), config, cache=None, say=print)
    shared = tmp_path / "cache/scenes"
    assert asked == [("train", 5, shared), ("test", 2, shared)]


def test_scenes_that_were_cut_short_name_the_folder_to_delete(tmp_path: Path) -> None:
    rendered("test", count=2, seed=9, folder=tmp_path, workers=1)
    for kind in ("shapes", "images"):
        path = tmp_path / f"test-9-2.{kind}.npy"
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        with pytest.raises(CacheError, match=rf"{path} .*: delete .*`rm -r {tmp_path}`"):
            rendered("test", count=2, seed=9, folder=tmp_path, workers=1)
        path.write_bytes(whole)


def test_augmentation_moves_the_marker_with_its_pixels() -> None:
    """A lone odd pixel stands for the marker; wherever the crop puts it, the row of shapes must point at it."""
    images = np.full((1, 3, scene.HEIGHT, scene.WIDTH), 100, np.uint8)
    images[0, :, 70, 301] = 200
    shapes = np.full((1, scene.MAX_SHAPES, 3), -1, np.float32)
    shapes[0, 0] = 301.5, 70.5, 1
    pictures, rows = crops(Pool(images, shapes), np.random.default_rng(0), batch=64, height=64, width=96)
    seen = 0
    for picture, (x, y, kind) in zip(pictures, rows[:, 0], strict=True):
        odd = np.argwhere(picture[0] != np.median(picture[0]))
        assert len(odd) == (kind == 1)
        if kind == 1:
            assert (odd[0] + 0.5).tolist() == [y, x]
            seen += 1
    assert seen >= 40


def _ideal(x: float, y: float) -> Prediction:
    columns, rows = torch.arange(32) + 0.5, torch.arange(16) + 0.5
    dx, dy = x / 4 - columns[None, :].expand(16, 32), y / 4 - rows[:, None].expand(16, 32)
    heat = 12 - 8 * (dx.square() + dy.square())
    return Prediction(heat[None], torch.stack([dx, dy])[None], torch.full((1, 8, 16), 9.0))


@pytest.mark.parametrize(("x", "y"), [(50.3, 21.7), (0.4, 0.2), (127.9, 63.5), (64.0, 32.0)])
def test_locate_reads_a_centre_to_sub_pixel_precision_up_to_the_border(x: float, y: float) -> None:
    assert locate(*_ideal(x, y).arrays())[0].tolist() == pytest.approx([x, y], abs=1e-3)


def _locate_in_torch(prediction: Prediction) -> torch.Tensor:
    """What `decoding.locate` says in numpy, said with torch's own operators."""
    batch, height, width = prediction.heat.shape
    kind = F.interpolate(prediction.real[:, None], size=(height, width), mode="bilinear")[:, 0]
    best = (F.logsigmoid(prediction.heat) + F.logsigmoid(kind)).flatten(1).argmax(1)
    centres = []
    for image in range(batch):
        row, column = divmod(int(best[image]), width)
        cells = [(r, c) for r in (row - 1, row, row + 1) for c in (column - 1, column, column + 1)]
        cells = [(r, c) for r, c in cells if 0 <= r < height and 0 <= c < width]
        weights = torch.stack([prediction.heat[image, r, c] for r, c in cells]).softmax(0)
        said = torch.stack([torch.tensor([c + 0.5, r + 0.5]) + prediction.offset[image, :, r, c] for r, c in cells])
        centres.append(4 * (weights[:, None] * said).sum(0))
    return torch.stack(centres)


def test_the_numpy_decoding_equals_torchs_on_any_heads_and_on_photographs(photographs: np.ndarray) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((16, 9, 14), (16, 2, 9, 14), (16, 9, 14))
    heat, offset, real = (3 * torch.randn(shape, generator=generator) for shape in shapes)
    network = load_network(SHIPPED)
    with torch.no_grad():
        seen = network.heads(*network.stage2(torch.from_numpy(photographs)))
    for prediction in (Prediction(F.pad(heat, (0, 0, 0, 1)), F.pad(offset, (0, 0, 0, 1)), real[:, :5, :7]), seen):
        expected = _locate_in_torch(prediction).numpy()
        np.testing.assert_allclose(locate(*prediction.arrays()), expected, rtol=0, atol=1e-3)


def test_a_shape_is_named_by_the_cell_that_it_lies_in() -> None:
    real = np.full((1, 4, 8), -1, np.float32)
    real[0, 2, 5] = 1
    points = np.array([[[40.0, 16.0], [47.9, 23.9], [48.0, 16.0], [-1.0, -1.0]]], np.float32)
    assert named_marker(real, points).tolist() == [[True, True, False, False]]


def test_decoding_needs_no_torch() -> None:
    script = (
        "import sys; from litehrnet_stage2.apps.landmarks import decoding, drawing, metrics as m\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_drawing_marks_the_centre_and_leaves_it_visible(tmp_path: Path) -> None:
    image = np.full((3, 64, 96), 90, np.uint8)
    draw_answer(image, (40.5, 20.5), tmp_path / "answer.png", true=(42.0, 20.0), scale=2)
    with Image.open(tmp_path / "answer.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (128, 192, 3)
    rows, columns = np.nonzero((pixels == FOUND).all(axis=2))
    assert (columns.mean() / 2, rows.mean() / 2) == pytest.approx((40.5, 20.5), abs=0.5)
    assert (pixels[41, 81] == 90).all()
    with pytest.raises(ValueError, match=r"float32 \[3, 4, 4\]"):
        draw_answer(np.zeros((3, 4, 4), np.float32), (0, 0), tmp_path / "no.png")


def test_the_loss_prefers_the_right_centre_and_the_right_kind() -> None:
    shapes = torch.tensor([[[50.3, 21.7, 1.0], [100.0, 40.0, 0.0]]])
    right, aside = _ideal(50.3, 21.7), _ideal(58.3, 21.7)
    called_real = right.real
    called_decoy = called_real.clone()
    called_decoy[0, 3:7, 10:15] = -9.0
    named = Prediction(right.heat, right.offset, called_decoy)
    assert task_loss(named, shapes) < task_loss(right, shapes) < task_loss(aside, shapes)


def test_the_answers_loss_counts_the_offset_where_the_teacher_sees_the_centre_alone() -> None:
    wanted = _ideal(50.3, 21.7)
    here, elsewhere = wanted.offset.clone(), wanted.offset.clone()
    row, column = divmod(int(wanted.heat[0].argmax()), wanted.heat.shape[2])
    here[0, 0, row, column] += 0.5
    elsewhere[0, 0, 0, 0] += 0.5
    share = float(torch.softmax(wanted.heat.flatten(), 0).max())
    at_the_centre = answer_loss(Prediction(wanted.heat, here, wanted.real), wanted)
    assert float(at_the_centre) == pytest.approx(0.25 * share, rel=1e-5)
    assert answer_loss(Prediction(wanted.heat, elsewhere, wanted.real), wanted) < at_the_centre / 10
    assert answer_loss(wanted, wanted) == 0


def test_metrics_count_a_perfect_predictor_as_perfect_and_a_blind_one_as_lost() -> None:
    shapes = np.full((2, scene.MAX_SHAPES, 3), -1, np.float32)
    shapes[:, 0] = (50.3, 21.7, 1), (90.0, 40.0, 1)
    both = [_ideal(50.3, 21.7), _ideal(90.0, 40.0)]
    perfect = Prediction(*(torch.cat([getattr(p, f) for p in both]) for f in ("heat", "offset", "real")))
    good = task_metrics([(perfect.arrays(), shapes)])
    assert (good.detection, good.within_2px, good.decoy_accuracy) == (1.0, 1.0, 1.0)
    assert good.error_p95_px < 0.01
    blind = Prediction(-perfect.heat, torch.zeros_like(perfect.offset), -perfect.real)
    bad = task_metrics([(blind.arrays(), shapes)])
    assert (bad.detection, bad.within_2px, bad.decoy_accuracy) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no scene"):
        task_metrics([])


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [learning_rate_factor(p, warmup=0.1) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert factors == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_a_training_follows_its_steps_and_not_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(scenes=4, test_scenes=2, steps=3, batch=4, crop_px=64, evaluate_every=2, threads=1)
    train(settings, out=tmp_path / "first", cache=tmp_path / "pool")
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr("litehrnet_stage2.apps.landmarks.train.time.monotonic", lambda: next(hours))
    train(settings, out=tmp_path / "again", cache=tmp_path / "pool")
    first, again = ((tmp_path / name / "float.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again


def test_a_short_training_leaves_weights_that_load_into_the_network(tmp_path: Path) -> None:
    settings = TrainSettings(scenes=4, test_scenes=2, steps=3, batch=4, crop_px=64, evaluate_every=2)
    metrics = train(settings, out=tmp_path, cache=tmp_path / "pool")
    assert metrics.scenes == 2
    assert (tmp_path / "summary.json").exists()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2

    network = LandmarkNet().eval()
    save_network(network.state_dict(), tmp_path / "weights")
    images = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path / "weights")(images).heat, network(images).heat)
