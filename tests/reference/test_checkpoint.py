"""Checkpoints: what comes back is what was saved, and what is no checkpoint says why."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from litehrnet_stage2.reference.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.golden import evaluate
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 0), expansion=3)


@pytest.fixture
def saved(tmp_path: Path, trained: Callable[[Stage2Config], Stage2]) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(trained(CONFIG), path)
    return path


def test_a_float_network_comes_back_with_its_config_and_every_tensor(
    saved: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    loaded, model = load_checkpoint(saved), trained(CONFIG)
    assert type(loaded) is Stage2
    assert not loaded.training
    assert loaded.config == CONFIG
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_quantised_network_comes_back_computing_the_same_codes(
    tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    x = torch.randn(2, 4, 8, 8)
    model = QATStage2.from_float(trained(CONFIG)).calibrate(x)
    save_checkpoint(model, tmp_path / "qat.safetensors")
    loaded = load_checkpoint(tmp_path / "qat.safetensors")
    assert isinstance(loaded, QATStage2)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(loaded(x), model(x), strict=True))
    (one, _), (two, _) = freeze(model), freeze(loaded)
    codes = one.input_quantization.quantize(x.numpy())
    for name, due in evaluate(one, codes).items():
        assert (evaluate(two, codes)[name] == due).all()


def test_a_checkpoint_is_two_plain_files_and_no_pickle(saved: Path) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads(saved.with_suffix(".json").read_text())["config"]["num_channels"] == [4, 8]
    header_bytes = int.from_bytes(saved.read_bytes()[:8], "little")
    assert "transition.b1_keep.conv.weight" in json.loads(saved.read_bytes()[8 : 8 + header_bytes])


def test_a_pickle_in_its_place_is_refused_and_not_executed(saved: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return (Path(tmp_path / "executed").mkdir, ())  # type: ignore[return-value]

    saved.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_checkpoint(saved)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_missing_file_is_named(saved: Path, suffix: str) -> None:
    saved.with_suffix(suffix).unlink()
    with pytest.raises(CheckpointError, match=rf"no checkpoint at .*: model{suffix} is missing"):
        load_checkpoint(saved)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_damaged(saved: Path, size: int) -> None:
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="no safetensors file, or is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "onnx"}, "kind 'onnx'; accepted are version 1 and kinds float, qat"),
        ({"kind": ["qat"]}, r"kind \['qat'\]; accepted are"),
        ({"schema_version": 2}, "schema version 2 .*; accepted are version 1"),
        ({"config": {"num_channels": [4, 8], "depth": 3}}, "unknown Stage2Config key 'depth'"),
        ({"config": {"num_channels": [4]}}, "does not describe a checkpoint .*two entries"),
        ({"config": 3}, "does not describe a checkpoint"),
        ({"kind": "qat"}, "does not hold the weights of its config"),
        ({"config": {"in_channels": 4}}, "does not hold the weights of its config"),
    ],
)
def test_a_card_that_does_not_fit_says_what_is_wrong(saved: Path, change: dict[str, Any], message: str) -> None:
    card = saved.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}"])
def test_a_card_that_is_no_json_object_of_ours_is_refused(saved: Path, content: str) -> None:
    saved.with_suffix(".json").write_text(content)
    with pytest.raises(CheckpointError, match="does not describe a checkpoint"):
        load_checkpoint(saved)


def test_a_lacking_tensor_is_named(saved: Path) -> None:
    tensors = load_file(saved)
    del tensors["smooth.0.conv.weight"]
    save_file(tensors, saved)
    with pytest.raises(CheckpointError, match=r"does not hold the weights .*smooth\.0\.conv\.weight"):
        load_checkpoint(saved)


def test_saving_over_a_checkpoint_that_cannot_be_written_keeps_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(Stage2(CONFIG), saved)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.json", "model.safetensors"]
