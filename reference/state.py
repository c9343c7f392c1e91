"""Weights by name: the names that wrappers and pruning give them are mended, other mistakes are told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.errors import InputError

_WRAPPERS = {"module", "_orig_mod"}  # of DistributedDataParallel and of torch.compile
_OFFICIAL = re.compile(r"(^|\.)(stage\d\.\d|transition\d|fuse_layers\.\d\.\d\.\d)\.")  # HRNet's and Lite-HRNet's own
_UNUSED = "num_batches_tracked"


class WeightsError(InputError):
    """Weights do not fit the network they are for."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`'s, an average's or a data-parallel wrapper, or `model` itself."""
    while type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel", "AveragedModel"):
        model = next(model.children())
    return model


def plain_names(state: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    """`state` without what wrappers, pruning and an enclosing network add to the names.

    Args:
        state: tensors by name.
        anchor: a name that the Stage2 has; where it stands under one prefix, that part of `state` is meant.

    Raises:
        WeightsError: values are no tensors, or several parts of `state` are a Stage2's.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor):
            hint = f"checkpoint[{name!r}]" if isinstance(value, Mapping) else "tensors by name"
            raise WeightsError(f"`{name}` is no tensor but of type {type(value).__name__}: pass {hint} alone")
    names = {".".join(part for part in name.split(".") if part not in _WRAPPERS): v for name, v in state.items()}
    for name in [name for name in names if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in names]:
        bare = name.removesuffix("_orig")
        names[bare] = names.pop(name) * names.pop(f"{bare}_mask")
    prefixes = [name.removesuffix(anchor) for name in names if f".{name}".endswith(f".{anchor}")]
    if len(prefixes) > 1:
        raise WeightsError(
            f"the state dict holds {len(prefixes)} Stage2, under {', '.join(f'`{prefix}`' for prefix in prefixes)}: "
            f"choose one with {_part(prefixes[0])}"
        )
    prefix = prefixes[0] if prefixes else ""
    return {name.removeprefix(prefix): tensor for name, tensor in names.items() if name.startswith(prefix)}


def check_weights(state: Mapping[str, Tensor], due: Mapping[str, Tensor], config: Stage2Config) -> None:
    """Check that `state` has the names and shapes of `due`, the state of a Stage2 of `config`.

    Raises:
        WeightsError: it has not; the message names the mistake and what to do.
    """
    missing = [name for name in due if name not in state and not name.endswith(_UNUSED)]
    unexpected = [name for name in state if name not in due]
    wrong = [name for name in due if name in state and state[name].shape != due[name].shape]
    if not (missing or unexpected or wrong):
        return
    quantised, wants_quantised = (any(name.endswith("output.scale") for name in names) for names in (state, due))
    if any("parametrizations." in name for name in unexpected):
        problem = (
            f"`{next(name for name in unexpected if 'parametrizations.' in name)}` belongs to a parametrisation: "
            "call torch.nn.utils.parametrize.remove_parametrizations on that layer first"
        )
    elif quantised and not wants_quantised:
        problem = "they are those of a QATStage2: load them with QATStage2(config).load_state_dict(...)"
    elif wants_quantised and any(name.endswith("bn.running_mean") for name in state):
        problem = (
            "they are those of a float Stage2: load them into one, and make the quantisation-aware network with "
            "QATStage2.from_float(stage2)"
        )
    elif any(name.endswith("conv.bias") for name in unexpected) and all(".bn." in name for name in missing):
        problem = (
            "BatchNorm has been folded into the convolutions (there is a "
            f"`{next(name for name in unexpected if name.endswith('conv.bias'))}` and no `bn`): "
            "take the weights from before that"
        )
    elif any(_OFFICIAL.search(name) for name in state):
        problem = (
            f"`{next(name for name in state if _OFFICIAL.search(name))}` is a name of the official HRNet or "
            "Lite-HRNet, whose blocks are others than these: train a Stage2 of this package in its place"
        )
    elif (found := _config_of(state)) is not None and found != config:
        shape = ("in_channels", "num_channels", "num_blocks", "expansion")
        values = ", ".join(f"{name}={getattr(found, name)}" for name in shape)
        problem = f"they are those of another shape: make the network with Stage2Config({values})"
    elif wrong and not missing:
        problem = f"`{wrong[0]}` has shape {list(state[wrong[0]].shape)} instead of {list(due[wrong[0]].shape)}"
    else:
        problem = "; ".join(
            f"{len(names)} names are {what}, the first `{names[0]}`"
            for what, names in (("missing", missing), ("unknown", unexpected))
            if names
        )
    raise WeightsError(f"the weights do not fit this {'QATStage2' if wants_quantised else 'Stage2'}: {problem}")


def _config_of(state: Mapping[str, Tensor]) -> Stage2Config | None:
    """The shape of the Stage2 that these weights are of, as far as they tell."""
    try:
        c1, c0 = state["transition.b1_keep.conv.weight"].shape[:2]
        c2 = state["transition.b2_down.pointwise.conv.weight"].shape[0]
        blocks = [{name.split(".")[2] for name in state if name.startswith(f"branches.{i}.")} for i in (0, 1)]
        hidden = [state[n].shape[0] / state[n].shape[1] for n in state if n.endswith("expand.conv.weight")]
        return Stage2Config(
            in_channels=c0,
            num_channels=(c1, c2),
            num_blocks=(len(blocks[0]), len(blocks[1])),
            expansion=int(hidden[0]) if hidden else Stage2Config().expansion,
        )
    except (KeyError, ValueError, IndexError):
        return None


def _part(prefix: str) -> str:
    """The line that takes one part out of a state dict."""
    return f"{{k.removeprefix({prefix!r}): v for k, v in state.items() if k.startswith({prefix!r})}}"
