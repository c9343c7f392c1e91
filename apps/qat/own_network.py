"""A person's own whole network for `stage2 qat`: the float network to match, and recorded inputs to match it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.features_file import find_arrays
from litehrnet_stage2.apps.network_source import (
    InputDeclaration,
    as_declared,
    load_network,
    map_inputs,
    parse_inputs,
)
from litehrnet_stage2.apps.qat.data import ShardSource
from litehrnet_stage2.apps.qat.features import Shards
from litehrnet_stage2.apps.qat.held_out import output_tensors
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
from litehrnet_stage2.reference.network_checkpoint import is_network_checkpoint

STRIDE = 4
"""Positions of an input, each way, in a cell of 1/4 resolution, which `crop_cells` counts."""


class InputShards(Shards):
    """What enters a network, of any number of `.npy` files; `gather` gives uint8 of pixels, otherwise float32.

    Raises:
        InputError: as `map_inputs`: everything is checked here, before any training starts.
    """

    def __init__(self, paths: Sequence[Path], declared: InputDeclaration) -> None:
        super().__init__(map_inputs(paths, declared), lambda array: as_declared(array, declared))


def own_network(
    factory: str,
    checkpoint: Path | None,
    inputs: Sequence[str],
    outputs: Sequence[str] | None,
    features: str,
    config: QatConfig,
) -> tuple[QuantizedNetwork, ShardSource, nn.Module]:
    """The teacher for `fine_tune`, its recorded inputs, and the float network that the teacher was made of.

    Args:
        factory: `MODULE:NAME` of a function that returns the float network.
        checkpoint: its state dict, or None where it has its weights.
        inputs: as `--input` declares them; one is trained on.
        outputs: their names, or None for those that the network gives.
        features: a `.npy`, a folder of them, or a pattern.
        config: how much is kept out of training, and how large crops are.

    Raises:
        InputError: the network or its inputs are not as declared, there are too few, or the network takes no crops.
        ReadError: it has operators that are not known: all of them are named.
    """
    declared = parse_inputs(inputs)
    if len(declared) > 1:
        raise InputError(
            f"`stage2 qat` trains a network of one input, and {len(declared)} are declared: train it in a loop of your "
            "own, as docs/qat.md shows"
        )
    if not features:
        raise InputError("--features is missing: name the .npy files that hold the network's inputs")
    if checkpoint is not None and is_network_checkpoint(checkpoint):
        raise InputError(f"{checkpoint} is a quantisation-aware checkpoint: the network to match must be a float one")
    shards = InputShards(find_arrays(features), declared[0])
    source = ShardSource(shards, config, stride=STRIDE)
    names = None if outputs is None else tuple(outputs)
    made = load_network(factory, checkpoint)
    network = quantize(made, {declared[0].name: shards.gather([0])}, outputs=names)
    if config.crop_cells:
        _check_crops(network, source.batch(0, rank=0, ranks=1).features[:1], config)
    return network, source, made


@torch.no_grad()
def _check_crops(network: QuantizedNetwork, crop: Tensor, config: QatConfig) -> None:
    """See that the network runs on a crop: it cannot where a Linear, say, has the whole map before it."""
    try:
        output_tensors(network(crop))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the network takes no crops of {crop.shape[2]}x{crop.shape[3]}, which `crop_cells` "
            f"(={config.crop_cells}) asks for: --set crop_cells=0 for whole inputs ({reason})"
        ) from error
