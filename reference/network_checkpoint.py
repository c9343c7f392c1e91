"""Checkpoints of a whole quantised network: safetensors, and a hashed JSON file beside them that says whose they are.

The network itself is code, so a checkpoint is loaded into one that `quantize` made from the same float module.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from litehrnet_stage2.reference.checkpoint import MOST_CARD_BYTES, MOST_WEIGHTS_BYTES, CheckpointError
from litehrnet_stage2.reference.contract.codec import parse
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular, write_whole
from litehrnet_stage2.reference.integer_function import QMAX, QMIN
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.quantizers import ActivationQuantizer
from litehrnet_stage2.reference.sealed import pair_sha256

SCHEMA_VERSION = 1
KIND = "quantized network"


def save_network_checkpoint(
    network: QuantizedNetwork, path: Path | str, *, sqnr_db: Mapping[str, float] | None = None
) -> None:
    """Write `path` (`.safetensors`) and its `.json`; each appears whole or not at all.

    Args:
        network: calibrated.
        path: the weights' file.
        sqnr_db: of a fine-tuned network, signal to quantisation noise of each output against its float teacher.

    Raises:
        CheckpointError: `path` does not end in `.safetensors`, or a range of `network` is not known.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path} must end in .safetensors")
    if not network.calibrated:
        raise CheckpointError("the network has ranges that are not known: call network.calibrate(inputs) first")
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    payload = save(state)
    facts: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "kind": KIND, **_borders(network)}
    facts |= {} if sqnr_db is None else {"sqnr_db": dict(sqnr_db)}
    facts["sha256"] = pair_sha256(payload, facts)
    write_whole(path, payload)
    write_whole(path.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def is_network_checkpoint(path: Path) -> bool:
    """Whether the JSON file beside `path` says that it holds a quantised network; a bare state dict has none."""
    card = path.with_suffix(".json")
    if card == path or not card.is_file():
        return False
    try:
        return bool(_facts(card)["kind"] == KIND)
    except CheckpointError:
        return False


def tuned_sqnr_db(path: Path) -> dict[str, float] | None:
    """What `save_network_checkpoint` was told of the signal to noise ratio, in dB by output; None if nothing.

    Raises:
        CheckpointError: the JSON file is missing or damaged, or these are no finite numbers.
    """
    card = path.with_suffix(".json")
    found = _facts(card).get("sqnr_db")
    if found is None:
        return None
    if not isinstance(found, dict) or not all(type(d) in (int, float) and math.isfinite(d) for d in found.values()):
        raise CheckpointError(f"{card} has an `sqnr_db` (={reprlib.repr(found)}) that is not finite numbers by output")
    return {name: float(value) for name, value in found.items()}


def load_network_checkpoint(network: QuantizedNetwork, path: Path | str) -> QuantizedNetwork:
    """Give `network`, as `quantize` made it, the weights and ranges of a checkpoint; it rounds from then on.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint is of another network.
    """
    path = Path(path)
    facts = _facts(path.with_suffix(".json"))
    try:
        payload = read_regular(path, most_bytes=MOST_WEIGHTS_BYTES)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    if (facts["kind"], facts.get("schema_version")) != (KIND, SCHEMA_VERSION):
        raise CheckpointError(
            f"{path} has kind {facts['kind']!r} and schema version {facts.get('schema_version')!r}, where "
            f"{KIND!r} and {SCHEMA_VERSION} are due: write it with save_network_checkpoint"
        )
    if facts.pop("sha256", None) != pair_sha256(payload, facts):
        raise CheckpointError(
            f"{path} is damaged, or {path.with_suffix('.json').name} was not written with it: their hash is not the "
            "one that was written"
        )
    for name, wanted in _borders(network).items():
        if facts.get(name) != wanted:
            raise CheckpointError(
                f"{path} is of another network: its {name} are {facts.get(name)!r}, those of this one {wanted!r}"
            )
    try:
        state = load(payload)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file ({error})") from error
    _check_state(state, network.state_dict(), path)
    network.load_state_dict(state)
    for name, module in network.named_modules():
        if isinstance(module, ActivationQuantizer):
            _check_range(name, module, path)
    return network.eval()


def _borders(network: QuantizedNetwork) -> dict[str, list[str]]:
    return {
        "inputs": list(network.input_names),
        "pixels": sorted(network.pixels),
        "outputs": list(network.output_names),
    }


def _check_state(state: dict[str, Tensor], due: dict[str, Tensor], path: Path) -> None:
    mistakes = [
        *(f"`{name}` is missing" for name in due if name not in state),
        *(f"`{name}` is not one of its tensors" for name in state if name not in due),
        *(
            f"`{name}` is {_of(state[name])}, where {_of(tensor)} is due"
            for name, tensor in due.items()
            if name in state and _of(state[name]) != _of(tensor)
        ),
        *(f"`{name}` is not finite" for name in due if name in state and _has_nan(state[name])),
    ]
    if mistakes:
        more = f", and {len(mistakes) - 1} more such mistakes" if len(mistakes) > 1 else ""
        raise CheckpointError(f"{path} does not hold the weights of that network: {mistakes[0]}{more}")


def _of(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {_shape(tensor.shape)}"


def _shape(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _has_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(tensor.isfinite().all())


def _check_range(name: str, quantizer: ActivationQuantizer, path: Path) -> None:
    scale, zero_point = float(quantizer.scale), int(quantizer.zero_point)
    if not (math.isfinite(scale) and scale > 0 and QMIN <= zero_point <= QMAX and quantizer.calibrated):
        raise CheckpointError(
            f"{path} gives `{name}` the scale {scale} and the zero point {zero_point}: a scale is positive, a zero "
            f"point in [{QMIN}, {QMAX}]"
        )


def _facts(card: Path) -> dict[str, Any]:
    try:
        facts = parse(read_regular(card, most_bytes=MOST_CARD_BYTES))
        if not isinstance(facts["kind"], str):
            raise TypeError("its kind is no text")
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{card} does not describe a checkpoint ({error})") from error
    return dict(facts)
