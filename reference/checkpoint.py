"""Checkpoints: weights as safetensors, and a small JSON file beside them that says what they are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import write_whole
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

SCHEMA_VERSION = 1
_KINDS: dict[str, type[Stage2]] = {"float": Stage2, "qat": QATStage2}


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of something else."""


def save_checkpoint(model: Stage2, path: Path) -> None:
    """Write `path` (`.safetensors`) and its `.json`; each appears whole or not at all."""
    kind = "qat" if isinstance(model, QATStage2) else "float"
    card = {"schema_version": SCHEMA_VERSION, "kind": kind, "config": dataclasses.asdict(model.config)}
    write_whole(path, save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    write_whole(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


def load_checkpoint(path: Path) -> Stage2:
    """The network of a checkpoint, in eval mode: a `Stage2`, or a `QATStage2` that fake-quantises.

    Raises:
        CheckpointError: a file is missing, damaged, of another schema, or does not fit its config.
    """
    card_path = path.with_suffix(".json")
    for file in (path, card_path):
        if not file.is_file():
            raise CheckpointError(
                f"no checkpoint at {path}: {file.name} is missing; a checkpoint is a .safetensors file "
                "with a .json of the same name beside it, as `save_checkpoint` writes"
            )
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        version, kind = card["schema_version"], card["kind"]
        config = Stage2Config.from_dict(card["config"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{card_path} does not describe a checkpoint ({error})") from error
    if version != SCHEMA_VERSION or not isinstance(kind, str) or kind not in _KINDS:
        raise CheckpointError(
            f"{card_path} has schema version {version!r} and kind {kind!r}; "
            f"accepted are version {SCHEMA_VERSION} and kinds {', '.join(_KINDS)}"
        )
    model = _KINDS[kind](config)
    try:
        model.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file, or is damaged ({error})") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path} does not hold the weights of its config: {reason[:300]}") from error
    return model.eval()
