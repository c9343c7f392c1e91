"""Hostile checkpoints: of a network, and of a run of fine-tuning."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from litehrnet_stage2 import load_checkpoint
from litehrnet_stage2.apps.qat.run_checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from litehrnet_stage2.reference.network_checkpoint import load_network_checkpoint
from litehrnet_stage2.reference.sealed import pair_sha256
from tests.campaign.damage import TEXTS, accident, as_json, lie, many_flips
from tests.campaign.judge import Case
from tests.campaign.originals import quantised_network


def accidents(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """Either half changed; nothing is made good."""
    rng = np.random.default_rng(seed)
    while True:
        name = ("float", "qat")[rng.integers(2)]
        path = _copy(folder, scratch, name)
        half = path.with_suffix((".safetensors", ".json")[rng.integers(2)])
        kind, bad = accident(half.read_bytes(), rng)
        equal = half.suffix == ".json" and _same(bad, half.read_bytes())
        half.write_bytes(bad)
        yield Case(f"{kind} in {half.name}", lambda path=path: load_checkpoint(path), due=not equal)


def hostile(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """Card, header of the weights, or weights as their author pleases, and the hash made good."""
    return _hostile(("float", "qat"), load_checkpoint, folder, scratch, seed)


def networks(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """The same of a whole quantised network."""
    network = quantised_network()
    return _hostile(("network",), lambda path: load_network_checkpoint(network, path), folder, scratch, seed)


def _hostile(
    names: Sequence[str], load: Callable[[Path], object], folder: Path, scratch: Path, seed: int
) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    while True:
        path = _copy(folder, scratch, names[rng.integers(len(names))])
        card = json.loads(path.with_suffix(".json").read_text())
        payload = path.read_bytes()
        (size,) = struct.unpack_from("<Q", payload)
        header, weights = json.loads(payload[8 : 8 + size]), payload[8 + size :]
        kind = ("card", "header", "sizes", "weights", "flips", "text")[rng.integers(6)]
        what = ""
        if kind == "card":
            what, card = lie(card, rng)
        elif kind == "header":
            what, header = lie(header, rng)
            payload = _safetensors(header, weights)
        elif kind == "sizes":
            payload = struct.pack("<Q", int(rng.choice([0, 1, 2**31, 2**62, size + 1, size - 1]))) + payload[8:]
        elif kind == "weights":
            payload = _safetensors(header, many_flips(weights, rng))
        elif kind == "flips":
            payload = many_flips(payload, rng)
        content = as_json(card)
        if kind == "text":
            content = TEXTS[rng.integers(len(TEXTS))]
        elif isinstance(card, dict):
            facts = {name: value for name, value in card.items() if name != "sha256"}
            content = as_json({**facts, "sha256": pair_sha256(payload, facts)})
        path.write_bytes(payload)
        path.with_suffix(".json").write_bytes(content)
        yield Case(f"{kind} {what}", lambda path=path: load(path))


def runs(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """Checkpoints of a run: a damaged one is passed over, and the one before is taken, as if it had been the last."""
    del folder
    import torch

    rng = np.random.default_rng(seed)
    while True:
        run = scratch / "run"
        shutil.rmtree(run, ignore_errors=True)
        for step in (1, 2):
            write_checkpoint(
                run, Checkpoint(step=step, tensors={"w": torch.ones(64) * step}, facts={"a": step}), keep=2
            )
        half = run / f"step-00000002{('.safetensors', '.json')[rng.integers(2)]}"
        content = half.read_bytes()
        if rng.integers(3):
            kind, bad = accident(content, rng)
        else:
            kind, bad = "text", TEXTS[rng.integers(len(TEXTS))]
        half.write_bytes(bad)
        equal = half.suffix == ".json" and _same(bad, content)

        def resume(run: Path = run, equal: bool = equal) -> None:
            found = newest_checkpoint(run)
            if found is None or (found.step != 1 and not equal):
                raise AssertionError(f"resumed from {found}")

        yield Case(f"{kind} in {half.name}", resume)


def _copy(folder: Path, scratch: Path, name: str) -> Path:
    for suffix in (".safetensors", ".json"):
        shutil.copy(folder / f"{name}{suffix}", scratch / f"{name}{suffix}")
    return scratch / f"{name}.safetensors"


def _safetensors(header: object, weights: bytes) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + weights


def _same(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same JSON: a blank more or less changes nothing."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False
