"""Checkpoints: weights as safetensors, and a small JSON file beside them that says what they are."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.contract.codec import parse
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular, write_whole
from litehrnet_stage2.reference.integer_function import QMAX, QMIN
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import ActivationQuantizer
from litehrnet_stage2.reference.sealed import pair_sha256
from litehrnet_stage2.reference.stage2 import Stage2, inner_stage2
from litehrnet_stage2.reference.state import WeightsError, check_weights, plain_names

SCHEMA_VERSION = 2  # version 1 has no hash
MOST_WEIGHTS_BYTES = 2**30
MOST_CARD_BYTES = 2**16
_KINDS: dict[str, type[Stage2]] = {"float": Stage2, "qat": QATStage2}
_EXAMPLES = "examples"  # the tensor that holds `QATStage2.examples`
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of something else."""


@dataclass(frozen=True)
class Card:
    """What the JSON file of a checkpoint says.

    Attributes:
        kind: `float` or `qat`.
        config: the shape of the network.
        size: of a calibrated network, height and width of the features it was calibrated on.
        sqnr_db: of a fine-tuned network, signal to quantisation noise of Y1 and Y2 against its float teacher.
        sha256: `pair_sha256` of the weights and the rest of the card; none in version 1.
    """

    kind: str
    config: Stage2Config
    size: tuple[int, int] | None
    sqnr_db: tuple[float, float] | None
    sha256: str | None


def save_checkpoint(model: nn.Module, path: Path | str, *, sqnr_db: tuple[float, float] | None = None) -> None:
    """Write `path` (`.safetensors`) and its `.json`; each appears whole or not at all.

    Args:
        model: a `Stage2` or `QATStage2`, compiled, data-parallel or pruned ones too: their weights are written under
            the names of a plain one. Of a `QATStage2` its `examples` are written as well.
        path: the weights' file.
        sqnr_db: see `Card`.

    Raises:
        CheckpointError: `path` does not end in `.safetensors`.
        ValueError: `model` is no Stage2, or has other weights than one.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path} must end in .safetensors: write save_checkpoint(model, {str(path)!r}.safetensors)"
        )
    stage2 = inner_stage2(model, "save_checkpoint({}, path)")
    kind = "qat" if isinstance(stage2, QATStage2) else "float"
    if isinstance(stage2, QATStage2) and stage2.untouched:
        warnings.warn(
            "the QATStage2 that is saved has gradients, but its weights are as they were when it was calibrated: build "
            "the optimiser after QATStage2 has taken the float network's place",
            stacklevel=2,
        )
    due = _weights_of(kind, stage2.config)
    state = plain_names(stage2.state_dict(), next(iter(due)))
    check_weights(state, due, stage2.config)
    tensors = {name: state[name].detach().to("cpu", due[name].dtype, copy=True).contiguous() for name in due}
    if isinstance(stage2, QATStage2) and stage2.examples is not None:
        tensors[_EXAMPLES] = stage2.examples.cpu().contiguous()
    payload = save(tensors)
    size = stage2.size if isinstance(stage2, QATStage2) else None
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "config": json.loads(json.dumps(dataclasses.asdict(stage2.config))),  # tuples as JSON has them
    }
    facts |= {name: list(pair) for name, pair in (("size", size), ("sqnr_db", sqnr_db)) if pair is not None}
    facts["sha256"] = pair_sha256(payload, facts)
    write_whole(path, payload)
    write_whole(path.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def load_checkpoint(path: Path | str) -> Stage2:
    """The network of a checkpoint, in eval mode: a `Stage2`, or a `QATStage2` that fake-quantises if calibrated.

    Raises:
        CheckpointError: a file is missing, damaged, of another schema, or does not fit its config.
    """
    path = Path(path)
    card, facts = _read_card(path)
    payload = _read(path, MOST_WEIGHTS_BYTES)
    if card.sha256 is not None and card.sha256 != pair_sha256(payload, facts):
        raise CheckpointError(
            f"{path} is no safetensors file, or is damaged, or {path.with_suffix('.json').name} was not written "
            "with it: their hash is not the one that was written"
        )
    try:
        tensors = load(payload)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file, or is damaged ({error})") from error
    examples = tensors.pop(_EXAMPLES, None)
    due = _weights_of(card.kind, card.config)
    try:
        tensors = plain_names(tensors, next(iter(due)))
        check_weights(tensors, due, card.config)
        model = _KINDS[card.kind](card.config)
        model.load_state_dict(tensors)
        if isinstance(model, QATStage2):
            model.size, model.examples = card.size, examples
            _check_ranges(model)
    except WeightsError as error:
        raise CheckpointError(f"{path} does not hold the weights of its config: {error}") from error
    return model.eval()


def read_card(path: Path | str) -> Card:
    """What the JSON file beside the weights in `path` says.

    Raises:
        CheckpointError: a file is missing, or is no card.
    """
    return _read_card(Path(path))[0]


def _read_card(path: Path) -> tuple[Card, dict[str, Any]]:
    """The card, and what its hash is of."""
    if path.suffix in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which may run code and is not read here: load it yourself, then write "
            f"stage2.load_state_dict(torch.load({path.name!r}, weights_only=True)) and "
            f"save_checkpoint(stage2, {path.stem + '.safetensors'!r})"
        )
    card_path = path.with_suffix(".json")
    if path == card_path:
        raise CheckpointError(f"{path} is the JSON of a checkpoint: give {path.stem}.safetensors")
    for file in (path, card_path):
        if not file.is_file():
            raise CheckpointError(
                f"no checkpoint at {path}: {file.name} is missing; a checkpoint is a .safetensors file "
                "with a .json of the same name beside it, as `save_checkpoint` writes"
            )
    try:
        facts = parse(_read(card_path, MOST_CARD_BYTES))
        version, kind = facts["schema_version"], facts["kind"]
        size, decibels = facts.get("size"), facts.get("sqnr_db")
        config = Stage2Config.from_dict(facts["config"])
        sha256 = facts.pop("sha256") if version == SCHEMA_VERSION else None
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{card_path} does not describe a checkpoint ({error})") from error
    if (
        type(version) is not int
        or version not in (1, SCHEMA_VERSION)
        or not isinstance(kind, str)
        or kind not in _KINDS
    ):
        raise CheckpointError(
            f"{card_path} has schema version {version!r} and kind {kind!r}; "
            f"accepted are versions 1 and {SCHEMA_VERSION} and kinds {', '.join(_KINDS)}"
        )
    if size is not None and not all(type(n) is int and 0 < n < 2**15 and n % 2 == 0 for n in _pair(size)):
        raise CheckpointError(f"{card_path} has a `size` (={reprlib.repr(size)}) that is not two even numbers")
    if decibels is not None and not all(type(d) in (int, float) and math.isfinite(d) for d in _pair(decibels)):
        raise CheckpointError(
            f"{card_path} has an `sqnr_db` (={reprlib.repr(decibels)}) that is not two finite numbers"
        )
    return Card(kind, config, size and tuple(size), decibels and tuple(map(float, decibels)), sha256), facts


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (None, None)


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        return read_regular(path, most_bytes=most_bytes)
    except InputError as error:
        raise CheckpointError(str(error)) from error


def _weights_of(kind: str, config: Stage2Config) -> dict[str, Tensor]:
    """Names, shapes and dtypes of the weights, without their memory."""
    with torch.device("meta"):
        return _KINDS[kind](config).state_dict()


def _check_ranges(model: QATStage2) -> None:
    for name, quantizer in model.named_modules():
        if not isinstance(quantizer, ActivationQuantizer):
            continue
        scale, zero_point = float(quantizer.scale), int(quantizer.zero_point)
        if not (math.isfinite(scale) and scale > 0):
            raise WeightsError(f"`{name}.scale` (={scale}) must be finite and positive")
        if not QMIN <= zero_point <= QMAX:
            raise WeightsError(f"`{name}.zero_point` (={zero_point}) must lie in [{QMIN}, {QMAX}]")
        if quantizer.calibrated and not (math.isfinite(quantizer.low) and math.isfinite(quantizer.high)):
            raise WeightsError(f"`{name}` ranges over [{quantizer.low}, {quantizer.high}], which must be finite")
    if model.examples is not None:
        try:
            model.config.check_features(tuple(model.examples.shape))
        except ValueError as error:
            raise WeightsError(f"`{_EXAMPLES}` holds no features: {error}") from error
        if not (len(model.examples) and model.examples.dtype == torch.float32 and model.examples.isfinite().all()):
            raise WeightsError(f"`{_EXAMPLES}` must be finite float32 features, but is {model.examples.dtype}")
