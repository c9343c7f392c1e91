"""A float network as it was read: its steps as data, before any of them has an int8 form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from litehrnet_stage2.reference.errors import InputError


class ReadError(InputError):
    """A network has steps that have no int8 form here."""


class Unreadable(InputError):  # noqa: N818  # it becomes part of a ReadError
    """One step cannot be read; the message says why, and the remedy."""


@dataclass(frozen=True)
class FloatOp:
    """One step of a float network, which writes the tensor `name`.

    Attributes:
        kind: `conv`, `bn`, `linear`, `activation`, `silu`, `add`, `mul`, `concat`, `resize`, `nearest`, `max_pool`,
            `avg_pool`, `mean`, `flatten`, `pad`, `slice` or `identity`.
        reads: the tensors that it reads.
        shape: of its result, for the example inputs.
        values: what belongs to the kind, such as the `module` of a convolution or the `factor` of a resize.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FloatNetwork:
    """The steps of a network, in order, and its borders.

    Attributes:
        inputs: names of the inputs.
        ops: the steps.
        outputs: of each output, by its name, the tensor.
    """

    inputs: tuple[str, ...]
    ops: tuple[FloatOp, ...]
    outputs: Mapping[str, str]
