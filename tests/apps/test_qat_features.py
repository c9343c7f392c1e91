"""Feature shards: what is refused before training starts, and what `capture_features` records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from litehrnet_stage2.apps.qat.features import FeatureShards, capture_features, find_shards
from litehrnet_stage2.reference.stage2 import Stage2


def _maps(count: int, dtype: type = np.float32, channels: int = 32) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, channels, 8, 16)).astype(dtype)


def test_shards_of_both_dtypes_read_as_one_float32_sequence(tmp_path: Path) -> None:
    first, second = _maps(3), _maps(2, np.float16)
    np.save(tmp_path / "a.npy", first)
    np.save(tmp_path / "b.npy", second)
    shards = FeatureShards(find_shards(str(tmp_path / "*.npy")), channels=32)
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
        (_maps(2, np.float64), "float64: features must be float16 or float32"),
        (_maps(2, channels=31), r"shape \(2, 31, 8, 16\): features must be \[N,32,H,W\]"),
        (_maps(2)[0], r"shape \(32, 8, 16\)"),
        (_maps(2)[:, :, :7], "H and W even"),
        (_with_nan(), "NaN or infinity in maps 64 to 127"),
        (_maps(2)[:0], "hold no feature map"),
    ],
)
def test_a_bad_shard_is_refused(tmp_path: Path, maps: np.ndarray, message: str) -> None:
    np.save(tmp_path / "bad.npy", maps)
    with pytest.raises(ValueError, match=message):
        FeatureShards([tmp_path / "bad.npy"], channels=32)


def test_no_shard_a_foreign_file_and_unequal_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no feature shard"):
        FeatureShards(find_shards(str(tmp_path / "none-*.npy")), channels=32)
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
