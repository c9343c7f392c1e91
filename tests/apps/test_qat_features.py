"""Feature shards: what is refused before training starts, and what `capture_features` records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from litehrnet_stage2.apps.features_file import find_features, load_features
from litehrnet_stage2.apps.qat.features import FeatureShards, capture_features
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import Mode, set_mode
from litehrnet_stage2.reference.stage2 import Stage2


def _maps(count: int, dtype: type = np.float32, channels: int = 32) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, channels, 8, 16)).astype(dtype)


def test_shards_of_both_dtypes_read_as_one_float32_sequence(tmp_path: Path) -> None:
    first, second = _maps(3), _maps(2, np.float16)
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    shards = FeatureShards(find_features(str(tmp_path / "*.npy")), channels=32)
    assert len(shards) == 5
    got = shards.gather([4, 0, 2, 3]).numpy()
    assert got.dtype == np.float32
    assert np.array_equal(got, np.stack([second[1], first[0], first[2], second[0]]).astype(np.float32))


def _with_nan() -> np.ndarray:
    maps = _maps(70)
    maps[66, 3, 2, 1] = np.nan
    return maps


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (_maps(2).astype(np.int32), "must hold float16, float32 or float64, but holds int32"),
        (_maps(2, channels=31), r"features of shape \[N,32,H,W\], N >= 1, but has shape \[2, 31, 8, 16\]"),
        (_maps(2)[0], r"has shape \[32, 8, 16\]"),
        (_maps(2, channels=3), r"has shape \[2, 3, 8, 16\], which looks like images: .*capture_features"),
        (_maps(2, channels=3).transpose(0, 2, 3, 1), r"has shape \[2, 8, 16, 3\], which looks like images"),
        (_maps(2).transpose(0, 2, 3, 1), r"its channels last: write np\.save\('bad\.npy', features\.transpose"),
        (_maps(2)[:, :, :7], "H and W even"),
        (_with_nan(), "NaN or infinity in maps 64 to 127"),
        (_maps(2)[:0], r"N >= 1, but has shape \[0, 32"),
    ],
)
def test_a_bad_shard_is_refused(tmp_path: Path, maps: np.ndarray, message: str) -> None:
    np.save(tmp_path / "bad.npy", maps)
    with pytest.raises(ValueError, match=message):
        FeatureShards([tmp_path / "bad.npy"], channels=32)


def test_no_shard_a_foreign_file_and_unequal_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no file .*none-"):
        FeatureShards(find_features(str(tmp_path / "none-*.npy")), channels=32)
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(ValueError, match=r"is no \.npy array"):
        FeatureShards([tmp_path / "text.npy"], channels=32)
    np.save(tmp_path / "a.npy", _maps(2))
    np.save(tmp_path / "b.npy", _maps(2)[:, :, :6])
    with pytest.raises(ValueError, match="all must be alike"):
        FeatureShards([tmp_path / "a.npy", tmp_path / "b.npy"], channels=32)


class _Network(nn.Module):
    def __init__(self, stages: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.stages = nn.ModuleList(Stage2() for _ in range(stages))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y1, _ = self.stages[0](self.stem(images))
        return y1


def test_capture_records_what_enters_stage2_over_several_shards(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _Network(1).eval()
    images = torch.rand(5, 3, 16, 32)
    paths = capture_features(network, images.split(2), tmp_path / "shards", maps_per_shard=2)
    assert [np.load(p).shape for p in paths] == [(2, 32, 4, 8), (2, 32, 4, 8), (1, 32, 4, 8)]
    with torch.no_grad():
        wanted = network.stem(images).half().float()
    assert torch.equal(FeatureShards(paths, channels=32).gather(range(5)), wanted)


def test_capture_needs_exactly_one_stage2_and_something_to_capture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 2 Stage2"):
        capture_features(_Network(2), [torch.rand(1, 3, 16, 32)], tmp_path)
    with pytest.raises(ValueError, match="holds 0 Stage2"):
        capture_features(nn.Identity(), [torch.rand(1, 3, 16, 32)], tmp_path)
    with pytest.raises(ValueError, match="nothing was captured"):
        capture_features(_Network(1), [], tmp_path)


def test_a_file_a_folder_and_a_pattern_name_features_alike(tmp_path: Path) -> None:
    folder = tmp_path / "[1] x*"
    folder.mkdir()
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", _maps(2))
    both = [folder / "a.npy", folder / "b.npy"]
    assert find_features(folder) == both
    assert find_features(f"{tmp_path}/?1? x?/[ab].npy") == both
    assert find_features(str(folder / "a.npy")) == both[:1]
    assert len(load_features(folder, 32)) == 4
    with pytest.raises(InputError, match=r"no \.npy file in the folder"):
        find_features(tmp_path)


def test_of_many_maps_as_many_as_asked_for_are_read_evenly_spread(tmp_path: Path) -> None:
    maps = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 2, 2), np.float32)
    np.save(tmp_path / "a.npy", maps[:7])
    np.save(tmp_path / "b.npy", maps[7:])
    assert load_features(tmp_path, 4, most=4)[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert load_features(tmp_path, 4)[:, 0, 0, 0].tolist() == list(range(10))


def test_a_file_of_pytorch_is_answered_with_the_line_that_makes_an_array_of_it(tmp_path: Path) -> None:
    torch.save(torch.zeros(1, 32, 4, 4), tmp_path / "f.pt")
    with pytest.raises(InputError, match=r"np\.save\('f\.npy', features\.float\(\)\.numpy\(\)\)"):
        load_features(tmp_path / "f.pt", 32)


class _Normed(nn.Module):
    """BatchNorm before Stage2, which is called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.BatchNorm2d(32))
        self.stage2 = Stage2()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y1, _ = self.stage2(features=self.stem(images))
        return y1


def test_capture_in_train_mode_moves_no_statistic_and_records_what_eval_mode_feeds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = _Normed().train()
    network.stem[1].eval()  # as people freeze one
    images = torch.rand(4, 3, 16, 32) * 3
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = [part.training for part in network.modules()]
    (path,) = capture_features(network, images.split(2), tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [part.training for part in network.modules()] == training
    with torch.no_grad():
        wanted = network.eval().stem(images).half()
    assert np.array_equal(np.load(path), wanted.numpy())


def test_capture_moves_no_range_of_a_quantised_network(tmp_path: Path) -> None:
    network = _Normed()
    stage2 = QATStage2.from_float(network.stage2).calibrate(torch.randn(1, 32, 4, 8))
    network.stage2 = stage2
    set_mode(network, Mode.CALIBRATE)
    before = float(stage2.input.high)
    capture_features(network, [torch.rand(1, 3, 16, 32) * 1000], tmp_path)
    assert float(stage2.input.high) == before
    assert stage2.input.mode is Mode.CALIBRATE


def test_shards_of_an_earlier_capture_are_not_mixed_in(tmp_path: Path) -> None:
    network = _Network(1).eval()
    capture_features(network, torch.rand(6, 3, 16, 32).split(2), tmp_path, maps_per_shard=2)
    np.save(tmp_path / "mine.npy", _maps(1))
    paths = capture_features(network, [torch.rand(1, 3, 16, 32)], tmp_path)
    assert find_features(tmp_path) == [*paths, tmp_path / "mine.npy"]


def test_features_of_a_bfloat16_network_and_under_autocast_are_captured(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 32)
    (path,) = capture_features(_Normed().bfloat16(), [images.bfloat16()], tmp_path / "bfloat16")
    assert np.load(path).shape == (2, 32, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        (path,) = capture_features(_Network(1), [images], tmp_path / "autocast")
    assert np.load(path).shape == (2, 32, 4, 8)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_captured_features_keep_what_int8_can_tell_whatever_their_scale(factor: float, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 16, 32)
    network = _Network(1).eval()
    with torch.no_grad():
        network.stem.weight.mul_(factor)
        network.stem.bias.mul_(factor)
        wanted = network.stem(images).numpy()
    (path,) = capture_features(network, [images], tmp_path)
    assert np.abs(np.load(path).astype(np.float32) - wanted).max() <= np.abs(wanted).max() / 512


def test_features_of_a_compiled_network_are_captured(tmp_path: Path) -> None:
    network = torch.compile(_Network(1), backend="eager")
    images = torch.rand(2, 3, 16, 32)
    network(images)
    (path,) = capture_features(network, [images], tmp_path)
    assert len(np.load(path)) == 2


def test_a_loader_that_yields_labels_too_is_answered_with_the_line_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"capture_features\(network, \(images for images, \*_ in loader\), out\)"):
        capture_features(_Network(1), [(torch.rand(1, 3, 16, 32), torch.zeros(1))], tmp_path)


def test_a_network_that_never_reaches_its_stage2_says_so(tmp_path: Path) -> None:
    network = _Network(1)
    network.forward = lambda images: images  # type: ignore[method-assign]
    with pytest.raises(InputError, match="ran 1 batches, but not its Stage2"):
        capture_features(network, [torch.rand(1, 3, 16, 32)], tmp_path)
