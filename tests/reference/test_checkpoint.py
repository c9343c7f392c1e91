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
from torch import nn
from torch.nn.utils import prune

from litehrnet_stage2.reference.checkpoint import CheckpointError, load_checkpoint, read_card, save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import LONGEST_MESSAGE, InputError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.golden import evaluate
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.sealed import pair_sha256
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.reference.state import WeightsError

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 0), expansion=3)


@pytest.fixture
def saved(tmp_path: Path, trained: Callable[[Stage2Config], Stage2]) -> Path:
    path = tmp_path / "model.safetensors"
    save_checkpoint(trained(CONFIG), path)
    return path


def reseal(saved: Path, change: dict[str, Any]) -> None:
    """Write another card, or other weights, as if `save_checkpoint` had."""
    card = saved.with_suffix(".json")
    facts = {**json.loads(card.read_text()), **change}
    del facts["sha256"]
    facts["sha256"] = pair_sha256(saved.read_bytes(), facts)
    card.write_text(json.dumps(facts))


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
    (one, _), (two, _) = freeze(model), freeze(loaded, *model.calibrated_shapes)
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
        ({"kind": "onnx"}, "kind 'onnx'; accepted are versions 1 and 2 and kinds float, qat"),
        ({"kind": ["qat"]}, r"kind \['qat'\]; accepted are"),
        ({"schema_version": 3}, "schema version 3 .*; accepted are versions 1 and 2"),
        ({"config": {"num_channels": [4, 8], "depth": 3}}, "unknown Stage2Config key 'depth'"),
        ({"config": {"num_channels": [4]}}, "does not describe a checkpoint .*two entries"),
        ({"config": 3}, "does not describe a checkpoint"),
        ({"kind": "qat"}, "does not hold the weights of its config"),
        ({"config": {"num_blocks": [10**6, 2]}}, r"`num_blocks` \(=\(1000000, 2\)\) must be made of integers from"),
        ({"sqnr_db": [20]}, "two finite numbers"),
        ({"size": [64, 127]}, r"`size` \(=\[64, 127\]\) that is not two even numbers"),
        ({"config": {"in_channels": 4}}, "does not hold the weights of its config"),
    ],
)
def test_a_card_that_does_not_fit_says_what_is_wrong(saved: Path, change: dict[str, Any], message: str) -> None:
    reseal(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", "[" * 10_000, '{"a":' * 900 + "1" + "}" * 900, '{"a": 1, "a": 2}']
)
def test_a_card_that_is_no_json_object_of_ours_is_refused(saved: Path, content: str) -> None:
    saved.with_suffix(".json").write_text(content)
    with pytest.raises(CheckpointError, match="does not describe a checkpoint"):
        load_checkpoint(saved)


def test_a_lacking_tensor_is_named(saved: Path) -> None:
    tensors = load_file(saved)
    del tensors["smooth.0.conv.weight"]
    save_file(tensors, saved)
    reseal(saved, {})
    with pytest.raises(CheckpointError, match=r"does not hold the weights .*smooth\.0\.conv\.weight"):
        load_checkpoint(saved)


def test_a_header_of_a_hundred_thousand_letters_is_not_quoted_whole(saved: Path) -> None:
    payload = saved.read_bytes()
    size = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + size])
    header["smooth.0.conv.weight"]["data_offsets"] = "a" * 100_000
    text = json.dumps(header).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + payload[8 + size :])
    reseal(saved, {})
    with pytest.raises(CheckpointError, match="no safetensors file, or is damaged") as caught:
        load_checkpoint(saved)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def test_saving_over_a_checkpoint_that_cannot_be_written_keeps_the_old_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(Stage2(CONFIG), saved)
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_any_flipped_bit_of_either_half_is_refused_or_harmless(saved: Path, suffix: str) -> None:
    file, due = saved.with_suffix(suffix), load_checkpoint(saved).state_dict()
    content = file.read_bytes()
    for bit in range(3, 8 * len(content), 8 * max(1, len(content) // 300) + 1):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            loaded = load_checkpoint(saved)
        except CheckpointError:
            continue
        assert loaded.config == CONFIG
        assert all(torch.equal(tensor, due[name]) for name, tensor in loaded.state_dict().items())


def test_halves_of_two_checkpoints_are_not_taken_for_one(saved: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_checkpoint(Stage2(CONFIG), tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").replace(saved)
    with pytest.raises(CheckpointError, match=r"model\.json was not written with it"):
        load_checkpoint(saved)


def test_a_checkpoint_of_the_first_schema_which_had_no_hash_is_read(saved: Path) -> None:
    card = json.loads(saved.with_suffix(".json").read_text())
    del card["sha256"]
    saved.with_suffix(".json").write_text(json.dumps({**card, "schema_version": 1}))
    assert load_checkpoint(saved).config == CONFIG


def test_a_quantised_network_comes_back_with_examples_of_its_features_and_its_sqnr(
    tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    x = torch.randn(5, 4, 8, 12)
    save_checkpoint(QATStage2.from_float(trained(CONFIG)).calibrate(x), tmp_path / "q.safetensors", sqnr_db=(20.5, 19))
    loaded = load_checkpoint(tmp_path / "q.safetensors")
    assert isinstance(loaded, QATStage2)
    assert loaded.examples is not None
    assert torch.equal(loaded.examples, x[:3])
    assert loaded.size == (8, 12)
    assert read_card(tmp_path / "q.safetensors").sqnr_db == (20.5, 19.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("smooth.1.act.output.zero_point", torch.tensor(128, dtype=torch.int32), r"\(=128\) must lie in \[-128, 127\]"),
        ("input.zero_point", torch.tensor(-1000, dtype=torch.int32), r"`input.zero_point` \(=-1000\) must lie in"),
        ("input.scale", torch.tensor(0.0), r"`input.scale` \(=0.0\) must be finite and positive"),
        ("input.scale", torch.tensor(torch.nan), "must be finite and positive"),
        ("input.high", torch.tensor(torch.inf), "which must be finite"),
        ("examples", torch.zeros(1, 3, 4, 6), "must have 4 channels"),
        ("examples", torch.full((1, 4, 4, 4), torch.inf), "must be finite float32 features"),
    ],
)
def test_a_quantiser_that_is_none_is_refused(
    name: str, value: torch.Tensor, message: str, tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    path = tmp_path / "q.safetensors"
    save_checkpoint(QATStage2.from_float(trained(CONFIG)).calibrate(torch.randn(1, 4, 8, 8)), path)
    save_file({**load_file(path), name: value}, path)
    reseal(path, {})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_a_file_too_large_or_a_pipe_is_refused_before_it_is_read(saved: Path) -> None:
    saved.unlink()
    with saved.open("wb") as file:
        file.truncate(2**35)  # sparse
    with pytest.raises(CheckpointError, match="at most 1,073,741,824 are read"):
        load_checkpoint(saved)
    saved.unlink()
    os.mkfifo(saved)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(saved)


def test_weights_declared_larger_than_the_file_are_refused(saved: Path) -> None:
    header = (
        b'{"transition.b1_keep.conv.weight":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    )
    saved.write_bytes(len(header).to_bytes(8, "little") + header)
    reseal(saved, {})
    with pytest.raises(CheckpointError, match="no safetensors file, or is damaged"):
        load_checkpoint(saved)


def test_a_pickle_is_answered_with_the_lines_that_make_a_checkpoint_of_it(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"torch\.load\('mine\.pt', weights_only=True\).*'mine\.safetensors'"):
        load_checkpoint(tmp_path / "mine.pt")


def test_paths_may_be_strings_and_must_end_as_checkpoints_do(tmp_path: Path) -> None:
    save_checkpoint(Stage2(CONFIG), str(tmp_path / "s.safetensors"))
    assert load_checkpoint(str(tmp_path / "s.safetensors")).config == CONFIG
    with pytest.raises(CheckpointError, match=r"mine\.json must end in \.safetensors"):
        save_checkpoint(Stage2(CONFIG), tmp_path / "mine.json")


class Larger(nn.Module):
    def __init__(self, stage2: nn.Module) -> None:
        super().__init__()
        self.middle = nn.Sequential(stage2)


def test_a_network_around_a_stage2_is_answered_with_the_part_to_save(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a Larger .* write save_checkpoint\(network\.middle\.0, path\)"):
        save_checkpoint(Larger(Stage2(CONFIG)), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="a ReLU is no Stage2 and holds none"):
        save_checkpoint(nn.ReLU(), tmp_path / "m.safetensors")


def _compiled(model: Stage2) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def _part_compiled(model: Stage2) -> nn.Module:
    model.branches[0] = torch.compile(model.branches[0])  # type: ignore[assignment]
    return model


def _parallel(model: Stage2) -> nn.Module:
    return nn.DataParallel(model)


@pytest.mark.parametrize("wrap", [_compiled, _part_compiled, _parallel])
def test_a_wrapped_network_is_saved_as_the_plain_one(
    wrap: Callable[[Stage2], nn.Module], tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    model = trained(CONFIG)
    due = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_checkpoint(wrap(model), tmp_path / "m.safetensors")
    loaded = load_checkpoint(tmp_path / "m.safetensors").state_dict()
    assert loaded.keys() == due.keys()
    assert all(torch.equal(loaded[name], due[name]) for name in due)


def test_a_pruned_convolution_is_saved_without_what_was_pruned(
    tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    model = trained(CONFIG)
    conv = model.smooth[0].conv
    prune.l1_unstructured(conv, "weight", amount=0.5)
    due = (conv.weight_orig * conv.weight_mask).detach()
    assert (due == 0).any()
    save_checkpoint(model, tmp_path / "m.safetensors")
    assert torch.equal(load_checkpoint(tmp_path / "m.safetensors").state_dict()["smooth.0.conv.weight"], due)
    assert torch.equal(
        QATStage2.from_float(model).smooth[0].conv.weight,
        QATStage2.from_float(load_checkpoint(tmp_path / "m.safetensors")).smooth[0].conv.weight,
    )


def test_a_parametrised_convolution_is_refused_with_the_call_that_undoes_it(
    tmp_path: Path, trained: Callable[[Stage2Config], Stage2]
) -> None:
    model = trained(CONFIG)
    nn.utils.parametrizations.weight_norm(model.smooth[0].conv)
    with pytest.raises(WeightsError, match=r"remove_parametrizations"):
        save_checkpoint(model, tmp_path / "m.safetensors")
