"""Checkpoints of a run in progress: atomic, kept a few deep, verified when read.

A checkpoint is two files, `step-N.safetensors` and `step-N.json`. The JSON is written last and holds one hash over
both, so a kill at any moment, or any damage later, leaves either a whole checkpoint or one that is seen not to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from litehrnet_stage2.reference.files import read_regular, write_whole
from litehrnet_stage2.reference.sealed import pair_sha256

MOST_NOTE_BYTES = 2**20
MOST_PAYLOAD_BYTES = 2**33


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
    note = json.loads(json.dumps({"step": checkpoint.step, "facts": checkpoint.facts}))  # as it will be read back
    seal = {"sha256": pair_sha256(payload, note)}
    write_whole(stem.with_suffix(".safetensors"), payload)
    write_whole(stem.with_suffix(".json"), json.dumps(note | seal, indent=1).encode())
    for old in _notes(folder)[keep:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`; a damaged one is passed over. None if there is none."""
    for note_path in _notes(folder):
        try:
            note = json.loads(read_regular(note_path, most_bytes=MOST_NOTE_BYTES))
            payload = read_regular(note_path.with_suffix(".safetensors"), most_bytes=MOST_PAYLOAD_BYTES)
            if note.pop("sha256") == pair_sha256(payload, note):
                return Checkpoint(step=note["step"], tensors=load(payload), facts=note["facts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # damaged: the one before it will do
    return None


def _notes(folder: Path) -> list[Path]:
    """The JSON halves, newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)
