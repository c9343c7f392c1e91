"""Loads a network as a user names it on the command line: a factory, its weights, its inputs and their data."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.apps.features_file import find_arrays
from litehrnet_stage2.reference.array_files import map_npy, read_npz
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular

if TYPE_CHECKING:
    from torch import nn

MOST_WEIGHTS_BYTES = 2**30
MOST_IMAGES = 512
"""Of the calibration data: ranges do not change with more."""

_PART = 64  # examples looked at once


@dataclass(frozen=True)
class InputDeclaration:
    """An input: its name among the parameters of `forward`, its shape `[1, C, H, W]`, and whether it is pixels."""

    name: str
    shape: tuple[int, ...]
    pixels: bool


def parse_input(text: str) -> InputDeclaration:
    """`images=1x3x256x512` or `images=1x3x256x512:pixels`.

    Raises:
        InputError: it is neither.
    """
    found = re.fullmatch(r"([A-Za-z_]\w*)=1x(\d{1,5})x(\d{1,5})x(\d{1,5})(:pixels)?", text)
    sizes = [int(size) for size in found.groups()[1:4]] if found else [0]
    if found is None or not all(sizes):
        raise InputError(f"the input {text!r} is not NAME=1xCxHxW, such as images=1x3x256x512, or that with :pixels")
    channels, height, width = sizes
    return InputDeclaration(found[1], (1, channels, height, width), found[5] is not None)


def parse_inputs(texts: Sequence[str]) -> list[InputDeclaration]:
    """Every `--input` of a command.

    Raises:
        InputError: there is none, two have one name, or one is not as `parse_input` has it.
    """
    declared = [parse_input(text) for text in texts]
    if not declared:
        raise InputError("a whole network needs --input NAME=1xCxHxW for each input of its forward, and has none")
    names = [one.name for one in declared]
    if len(set(names)) < len(names):
        raise InputError(f"two inputs have one name ({', '.join(names)}): give --input once for each")
    return declared


def load_network(factory: str, checkpoint: Path | None) -> nn.Module:
    """Call `MODULE:NAME`, which returns the network, and load its weights where a checkpoint is given.

    The module is imported, so its code runs: it is the one that the person named, from the installed packages or from
    the current folder.

    Raises:
        InputError: there is no such module or name, it raises, it returns no network, or the weights do not fit.
    """
    from torch import nn

    module_name, _, name = factory.partition(":")
    if not name:
        raise InputError(f"the network {factory!r} is not MODULE:NAME, such as my_package.model:make")
    here = str(Path.cwd())
    sys.path.append(here)  # behind what is installed: a file here never stands in for a package
    try:
        made = getattr(importlib.import_module(module_name), name)()
    except Exception as error:  # whatever a person's own code raises
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{factory} could not make the network: {type(error).__name__}: {reason}") from error
    finally:
        sys.path.remove(here)
    if not isinstance(made, nn.Module):
        raise InputError(f"{factory} returned a {type(made).__name__}, where a torch.nn.Module is due")
    if checkpoint is not None:
        _load_weights(made, checkpoint)
    return made.eval()


def load_converted_network(
    factory: str,
    checkpoint: Path | None,
    declared: Sequence[InputDeclaration],
    inputs: Sequence[NDArray[Any]],
    *,
    output_names: tuple[str, ...] | None = None,
) -> nn.Module:
    """As `load_network`; where the checkpoint is a fine-tuned one, the quantised network with its weights and ranges.

    Args:
        factory: `MODULE:NAME`.
        checkpoint: a float state dict, or what `save_network_checkpoint` wrote; None keeps the module's own weights.
        declared: the inputs.
        inputs: examples of each, `[N, C, H, W]`.
        output_names: by default the keys of the dict, or the fields of the dataclass, that the network returns.

    Raises:
        InputError: as `load_network`, or the checkpoint is of another network.
    """
    from litehrnet_stage2.reference.network_checkpoint import is_network_checkpoint, load_network_checkpoint

    if checkpoint is None or not is_network_checkpoint(checkpoint):
        return load_network(factory, checkpoint)
    import torch

    from litehrnet_stage2.reference.network import quantize

    examples = {one.name: torch.from_numpy(x[:1]) for one, x in zip(declared, inputs, strict=True)}
    quantized = quantize(load_network(factory, None), examples, outputs=output_names)
    return load_network_checkpoint(quantized, checkpoint)


def _load_weights(network: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise InputError(f"{path} is PyTorch's own format, which is not read: save_file(network.state_dict(), ...) it")
    try:
        network.load_state_dict(load(read_regular(path, most_bytes=MOST_WEIGHTS_BYTES)))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} does not hold the weights of that network: {reason}") from error


def load_inputs(
    where: str | Path, declared: Sequence[InputDeclaration], *, most: int | None = MOST_IMAGES
) -> tuple[NDArray[Any], ...]:
    """The first `most` of each input `[N, C, H, W]`: `.npy` files of the one input, or a `.npz` with an array for each.

    Pixels are uint8, or floats in [0, 1], which become uint8; other inputs float32.

    Args:
        where: a `.npy`, a folder of them or a pattern, or a `.npz`.
        declared: the inputs.
        most: None is all.

    Raises:
        InputError: there is no such file, or an array is missing, or of another shape, dtype or range than declared.
    """
    path = Path(where)
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if missing := [one.name for one in declared if one.name not in arrays]:
            raise InputError(f"{where} has no array `{missing[0]}`: it has {', '.join(arrays)}")
        found = tuple(_checked(arrays[one.name][:most], one, path) for one in declared)
        if len({len(array) for array in found}) > 1:
            raise InputError(f"{where} has arrays of different lengths: {[len(array) for array in found]}")
        return found
    if len(declared) > 1:
        raise InputError(
            f"{where} is one array, and the network has {len(declared)} inputs: give a .npz with their names"
        )
    (one,) = declared
    parts, room = [], most
    for array in map_inputs(find_arrays(where), one):
        parts.append(as_declared(array[:room], one))
        room = None if room is None else room - len(parts[-1])
    return (np.concatenate(parts),)


def map_inputs(paths: Sequence[Path], one: InputDeclaration) -> list[NDArray[Any]]:
    """An input `[N, C, H, W]` in `.npy` files, mapped into memory and checked in full, for `as_declared`.

    Raises:
        InputError: a file is of another shape, dtype or range than declared, or pixels are bytes in one and floats in
            another.
    """
    if archives := [path for path in paths if path.suffix == ".npz"]:
        raise InputError(f"{archives[0]} is an .npz: give the array `{one.name}` in it as a .npy")
    arrays = [map_npy(path) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        _check(array, one, path)
        if array.dtype.kind != arrays[0].dtype.kind:
            raise InputError(
                f"{path} holds {array.dtype}, and {paths[0]} before it {arrays[0].dtype}: give pixels as uint8 in all "
                "files, or as floats in all"
            )
    return arrays


def as_declared(array: NDArray[Any], one: InputDeclaration) -> NDArray[Any]:
    """A checked array as the network takes it: uint8 of pixels, otherwise float32."""
    if not one.pixels:
        return array.astype(np.float32)
    return array if array.dtype == np.uint8 else np.rint(array.astype(np.float32) * 255).astype(np.uint8)


def _checked(array: NDArray[Any], one: InputDeclaration, where: Path) -> NDArray[Any]:
    _check(array, one, where)
    return as_declared(array, one)


def _check(array: NDArray[Any], one: InputDeclaration, where: Path) -> None:
    if array.ndim != 4 or array.shape[1:] != one.shape[1:] or not len(array):
        due = ",".join(map(str, one.shape[1:]))
        hint = ""
        if array.ndim == 4 and (array.shape[3], *array.shape[1:3]) == one.shape[1:]:
            hint = ": its channels come last, write x.transpose(0, 3, 1, 2)"
        raise InputError(f"{where} must hold `{one.name}` as [N,{due}], N >= 1, but has {list(array.shape)}{hint}")
    if one.pixels and array.dtype == np.uint8:
        return
    if array.dtype.kind != "f":
        kind = "uint8, or floats in [0, 1]," if one.pixels else "floats"
        raise InputError(f"{where} must hold `{one.name}` as {kind} but holds {array.dtype}")
    lowest, highest = _extremes(array)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(f"{where} holds values of `{one.name}` that are NaN or infinite: every value must be finite")
    if one.pixels and (lowest < 0 or highest > 1):
        raise InputError(
            f"{where} holds values of `{one.name}` from {lowest:.3g} to {highest:.3g}: pixels are uint8, or "
            "floats in [0, 1]; for anything else declare the input without :pixels"
        )


def _extremes(array: NDArray[Any]) -> tuple[float, float]:
    """The lowest and highest value as float32, NaN where there is one; a part of a mapped file at a time."""
    lowest, highest = [], []
    with np.errstate(over="ignore"):
        for start in range(0, len(array), _PART):
            part = array[start : start + _PART].astype(np.float32)
            lowest.append(part.min())
            highest.append(part.max())
    return float(np.min(lowest)), float(np.max(highest))
