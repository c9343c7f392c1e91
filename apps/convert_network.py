"""A whole network becomes a bundle: read, calibrated, frozen with its proof, and written in every format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.contract.artifacts import DEFAULT_TARGETS, check_targets
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.progress import Progress, silent

if TYPE_CHECKING:
    from torch import nn

    from litehrnet_stage2.reference.contract.manifest import Manifest
    from litehrnet_stage2.reference.network import QuantizedNetwork

GOLDEN_IMAGES = 3


def convert_network(
    network: nn.Module,
    out: Path,
    *inputs: NDArray[Any],
    name: str = "network",
    input_names: tuple[str, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
    targets: Sequence[str] | None = None,
    coreml_target: str = "iOS17",
    teacher: QuantizedNetwork | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Convert a float network, or one that `quantize` made and that was calibrated or trained.

    Args:
        network: made of the operators that docs/whole-network.md lists.
        out: folder of the bundle.
        inputs: of each parameter of `forward`, what to calibrate on: float32, or uint8 where the input is pixels,
            `[N, C, H, W]`. The first few become golden inputs; of a network that has its ranges they do nothing else.
        name: what the artifacts are called after.
        input_names: by default the parameters of `forward` in order.
        output_names: by default the keys of the dict, or the fields of the dataclass, that the network returns.
        targets: artifacts to make, of the table of artifacts; by default the default ones, without those that have
            no exact form of some operator.
        coreml_target: oldest system of the Neural Engine's form.
        teacher: what `quantize` made of the float network, not calibrated, where the weights of `network` were tuned
            since: the signal to noise ratio in the manifest is taken against it.
        progress: is told each step.

    Raises:
        Stage2Error: it cannot be converted, or not be put at `out`; the message says what to do.
    """
    import torch

    from litehrnet_stage2.converters.replacement import check_replaceable
    from litehrnet_stage2.converters.write_bundle import write_bundle
    from litehrnet_stage2.reference.freeze import freeze
    from litehrnet_stage2.reference.network import QuantizedNetwork, quantize
    from litehrnet_stage2.reference.quantizers import Mode, set_mode

    optional = DEFAULT_TARGETS if targets is None else ()
    targets = DEFAULT_TARGETS if targets is None else targets
    check_targets(targets)
    check_replaceable(out)
    if not inputs:
        raise InputError(
            "a network is calibrated on examples of its inputs, and none was given: pass an array for each"
        )
    for x in inputs:
        if not isinstance(x, np.ndarray):
            raise InputError(
                f"convert_network takes a numpy array `[N, C, H, W]` for each input, but was given {type(x).__name__}: "
                "make an array of it, with `np.stack` of several images or `.numpy()` of a tensor"
            )
    tensors = tuple(torch.from_numpy(x) for x in inputs)
    if isinstance(network, QuantizedNetwork):
        quantized = network
        for label, x in zip(quantized.input_names, inputs, strict=False):
            if x.dtype == np.uint8 and label not in quantized.pixels:
                raise InputError(f"`{label}` is an input of floats and was given uint8: quantize with uint8 for pixels")
    else:
        progress("reading the network")
        examples = tuple(x[:1] for x in tensors)
        named = examples if input_names is None else dict(zip(input_names, examples, strict=True))
        quantized = quantize(network, named, name=name, outputs=output_names)
        progress(f"calibrating on {len(tensors[0])} images")
        quantized.calibrate(*tensors)
    progress("freezing: proving that every runtime computes alike")
    function, proof = freeze(quantized, *(x.shape for x in tensors))
    set_mode(quantized, Mode.FLOAT)
    try:
        return write_bundle(
            function,
            proof,
            tuple(x[:GOLDEN_IMAGES] for x in inputs),
            out,
            float_network=lambda *x: _outputs(teacher or quantized, x),
            targets=targets,
            optional=optional,
            coreml_target=coreml_target,
            progress=progress,
        )
    finally:
        set_mode(quantized, Mode.FAKE_QUANTIZE)


def _outputs(network: QuantizedNetwork, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    import torch

    with torch.no_grad():
        found = network(*(torch.from_numpy(x) for x in inputs))
    return tuple(found[name].numpy() for name in network.output_names)
