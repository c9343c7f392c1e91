"""Checkpoints of a run in progress: atomic, kept a few deep, verified when read.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The JSON is written last and holds the
digest of the other, so a kill at any moment leaves either a whole checkpoint or one that is seen not to be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from litehrnet_stage2.reference.files import write_whole


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A moment of a run.

    Attributes:
        step: optimiser steps done.
        tensors: everything that has a shape, by name.
        facts: everything else: what must match when the run goes on (JSON values).
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> None:
    """Write atomically, then drop all but the newest `keep`.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    stem = folder / f"step-{checkpoint.step:08d}"
    note = {"step": checkpoint.step, "sha256": hashlib.sha256(payload).hexdigest(), "facts": checkpoint.facts}
    write_whole(stem.with_suffix(".safetensors"), payload)
    write_whole(stem.with_suffix(".json"), json.dumps(note, indent=1).encode())
    for old in _notes(folder)[keep:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`; a damaged one is passed over. None if there is none."""
    for note_path in _notes(folder):
        try:
            note = json.loads(note_path.read_text())
            payload = note_path.with_suffix(".safetensors").read_bytes()
        except (OSError, json.JSONDecodeError):
            continue
        if hashlib.sha256(payload).hexdigest() == note["sha256"]:
            return Checkpoint(step=note["step"], tensors=load(payload), facts=note["facts"])
    return None


def _notes(folder: Path) -> list[Path]:
    """The JSON halves, newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)
