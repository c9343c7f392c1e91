"""The weights of the example task on disk: a checkpoint of Stage2, and the stem and heads around it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from litehrnet_stage2 import reference
from litehrnet_stage2.apps.landmarks.landmark_net import Heads, LandmarkNet, Stem
from litehrnet_stage2.apps.landmarks.scene import HEIGHT, WIDTH
from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular
from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
from litehrnet_stage2.reference.network_checkpoint import load_network_checkpoint
from litehrnet_stage2.reference.stage2 import Stage2

SHIPPED = Path(reference.__path__[0]) / "weights"
"""Holds `float.safetensors`, `int8.safetensors` (Stage2), `landmarks.safetensors` (stem and heads), and `WHOLE`."""

NAME = "landmarks"
WHOLE = "landmarks-int8.safetensors"
"""The whole network, tuned, as `save_network_checkpoint` writes it."""

MOST_BYTES = 2**26  # of the stem and heads, which take 2**17


def save_network(state: dict[str, Tensor], folder: Path) -> None:
    """Split a `LandmarkNet`'s state into `float.safetensors` with its JSON and `landmarks.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    network = LandmarkNet()
    network.load_state_dict(state)
    assert isinstance(network.stage2, Stage2)
    save_checkpoint(network.stage2, folder / "float.safetensors")
    around = {name: t.contiguous() for name, t in state.items() if not name.startswith("stage2.")}
    save_file(around, folder / "landmarks.safetensors")


def load_stem_and_heads(path: Path) -> tuple[Stem, Heads]:
    """The float parts around Stage2, in eval mode.

    Raises:
        ValueError: the file is missing, damaged or of another network.
    """
    stem, heads = Stem(), Heads()
    try:
        state = load(read_regular(path, most_bytes=MOST_BYTES))
        for part, prefix in ((stem, "stem."), (heads, "heads.")):
            part.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not hold a stem and heads ({reason}): pass landmarks.safetensors") from error
    stem.eval()
    heads.eval()
    return stem, heads


def load_network(folder: Path, stage2: str = "float.safetensors") -> LandmarkNet:
    """The whole network, in eval mode, with the Stage2 of one of the folder's checkpoints."""
    network = LandmarkNet(load_checkpoint(folder / stage2))
    network.stem, network.heads = load_stem_and_heads(folder / "landmarks.safetensors")
    return network.eval()


def quantized_network(folder: Path) -> QuantizedNetwork:
    """The float network of a folder, from pixels `[1,3,256,512]` to the answer, as `quantize` makes it."""
    example = torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    return quantize(load_network(folder), example, name=NAME)


def load_whole(folder: Path) -> QuantizedNetwork:
    """The same with the weights and ranges that were tuned; it rounds.

    Raises:
        CheckpointError: `WHOLE` is missing, damaged or of another network.
    """
    return load_network_checkpoint(quantized_network(folder), folder / WHOLE)
