"""The checkpoint of a whole quantised network gives back its very codes, and refuses what it does not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.checkpoint import CheckpointError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
from litehrnet_stage2.reference.network_checkpoint import (
    is_network_checkpoint,
    load_network_checkpoint,
    save_network_checkpoint,
    tuned_sqnr_db,
)

SIZE = (1, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, channels: int = 4, output: str = "heat") -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.output = output

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        a = nn.functional.silu(self.a(image))
        return {self.output: torch.cat([a, self.b(a)], 1)}  # a concatenation: tensors that share one quantiser


def made(seed: int = 0, channels: int = 4, output: str = "heat") -> QuantizedNetwork:
    torch.manual_seed(seed)
    return quantize(Net(channels, output), torch.zeros(SIZE, dtype=torch.uint8))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[QuantizedNetwork, Path]:
    torch.manual_seed(5)
    network = made().calibrate(torch.randint(0, 256, (4, *SIZE[1:]), dtype=torch.uint8))
    save_network_checkpoint(network, tmp_path / "tuned.safetensors")
    return network, tmp_path / "tuned.safetensors"


def test_what_is_loaded_freezes_to_the_function_that_was_saved(saved: tuple[QuantizedNetwork, Path]) -> None:
    network, path = saved
    again = load_network_checkpoint(made(seed=1), path)
    assert is_network_checkpoint(path)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())
    image = torch.rand(SIZE)
    assert torch.equal(network(image)["heat"], again(image)["heat"])
    codes = torch.randint(-128, 128, SIZE, dtype=torch.int8).numpy()
    one, two = (golden.evaluate(freeze(net, SIZE)[0], codes)["heat"] for net in (network, again))
    assert (one == two).all()


@pytest.mark.parametrize(
    ("other", "said"), [(made(output="other"), "its outputs are"), (made(channels=5), "`a.weight` is float32")]
)
def test_a_checkpoint_of_another_network_is_refused_by_what_differs(
    saved: tuple[QuantizedNetwork, Path], other: QuantizedNetwork, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_network_checkpoint(other, saved[1])


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_change_in_either_file_is_seen(saved: tuple[QuantizedNetwork, Path], suffix: str) -> None:
    path = saved[1].with_suffix(suffix)
    if suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "added"}))
    else:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_network_checkpoint(made(), saved[1])


def test_a_network_without_ranges_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ranges that are not known"):
        save_network_checkpoint(made(), tmp_path / "w.safetensors")


def test_a_bare_state_dict_is_no_such_checkpoint(tmp_path: Path) -> None:
    assert not is_network_checkpoint(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"kind": 5}', '{"a":' * 900 + "1" + "}" * 900])
def test_a_card_that_describes_none_is_refused(saved: tuple[QuantizedNetwork, Path], content: str) -> None:
    saved[1].with_suffix(".json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tuned\.json does not describe a checkpoint"):
        load_network_checkpoint(made(), saved[1])


def test_a_pipe_and_a_huge_file_are_refused_before_they_are_read(saved: tuple[QuantizedNetwork, Path]) -> None:
    path = saved[1]
    with path.open("wb") as file:
        file.truncate(2**35)  # sparse
    with pytest.raises(CheckpointError, match="at most 1,073,741,824 are read"):
        load_network_checkpoint(made(), path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="no regular file"):
        load_network_checkpoint(made(), path)


def test_the_signal_to_noise_ratio_of_tuning_is_kept_and_only_numbers_are_taken_for_it(
    saved: tuple[QuantizedNetwork, Path],
) -> None:
    network, path = saved
    assert tuned_sqnr_db(path) is None
    save_network_checkpoint(network, path, sqnr_db={"heat": 31.5})
    assert tuned_sqnr_db(path) == {"heat": 31.5}
    load_network_checkpoint(made(), path)
    facts = json.loads(path.with_suffix(".json").read_text())
    for wrong in ([31.5], {"heat": "31.5"}, {"heat": True}, {"heat": float("inf")}):
        path.with_suffix(".json").write_text(json.dumps(facts | {"sqnr_db": wrong}))
        with pytest.raises(CheckpointError, match=r"sqnr_db|does not describe"):
            tuned_sqnr_db(path)
