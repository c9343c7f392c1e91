"""Checkpoints of a run: whole or not there, a few deep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litehrnet_stage2.apps.qat.run_checkpoint import Checkpoint, newest_checkpoint, write_checkpoint


def _write(folder: Path, step: int, keep: int = 3) -> None:
    write_checkpoint(
        folder, Checkpoint(step=step, tensors={"w": torch.full((3,), float(step))}, facts={"seed": 1}), keep=keep
    )


def test_the_newest_is_read_back_and_only_the_newest_few_are_kept(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for step in (10, 20, 100, 110):
        _write(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"step-{step:08d}.{suffix}" for step in (100, 110) for suffix in ("json", "safetensors")
    ]
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.facts) == (110, {"seed": 1})
    assert found.tensors["w"].tolist() == [110.0] * 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "no tensors", "no note", "half a note"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    _write(tmp_path, 1)
    _write(tmp_path, 2)
    tensors, note = tmp_path / "step-00000002.safetensors", tmp_path / "step-00000002.json"
    content = tensors.read_bytes()
    match damage:
        case "cut":
            tensors.write_bytes(content[:-1])
        case "flipped":
            tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "no tensors":
            tensors.unlink()
        case "no note":
            note.unlink()
        case "half a note":
            note.write_text(note.read_text()[:20])
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1


def test_any_flipped_bit_of_the_note_falls_back_to_the_checkpoint_before_or_is_harmless(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    _write(tmp_path, 2)
    note = tmp_path / "step-00000002.json"
    content, outcomes = note.read_bytes(), set()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        note.write_bytes(damaged)
        found = newest_checkpoint(tmp_path)
        assert found is not None
        assert (found.step, found.facts, found.tensors["w"].tolist()) in (
            (2, {"seed": 1}, [2.0] * 3),
            (1, {"seed": 1}, [1.0] * 3),
        )
        outcomes.add(found.step)
    assert 1 in outcomes


@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{}", "[" * 100_000, '{"sha256": 3}'])
def test_a_note_that_is_none_is_passed_over(content: str, tmp_path: Path) -> None:
    _write(tmp_path, 1)
    _write(tmp_path, 2)
    (tmp_path / "step-00000002.json").write_text(content)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
