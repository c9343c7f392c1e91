"""What an operator of the integer function is: its data, its golden rule, and what freezing has to prove of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.quantization import Codes, Quantization

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Check:
    """Something that freezing proves by trying every code, and the scale it may move until it holds.

    Attributes:
        moves: the tensor whose scale is nudged.
        holds: whether all runtimes agree, with the scales as they are.
        otherwise: what to say of that scale if no nudge helps.
    """

    moves: str
    holds: Callable[[], bool]
    otherwise: str


@dataclass(frozen=True, kw_only=True)
class Operator(ABC):
    """One node: reads the tensors `inputs` and writes the tensor `name`, all of them int8 codes.

    A new kind is a subclass in a file of its own, a line in `operators.KINDS`, and a line in each converter's `LOWER`.

    Attributes:
        name: of the tensor that it writes.
        inputs: names of the tensors that it reads, in order.
        moves_codes: whether it copies or compares codes only, so that all its tensors must share one quantisation.
    """

    name: str
    inputs: tuple[str, ...]
    moves_codes: ClassVar[bool] = False
    reads: ClassVar[int | None] = 1
    """How many tensors it reads; None for any number."""

    def __post_init__(self) -> None:
        names = (self.name, *self.inputs)
        if not self.inputs or not all(type(name) is str and name for name in names):
            raise InputError(f"`{self.name}` must read and write tensors by name, but has {names}")
        if self.reads is not None and len(self.inputs) != self.reads:
            raise InputError(
                f"`{self.name}` reads {len(self.inputs)} tensors: {type(self).__name__} takes {self.reads}"
            )

    @property
    def input(self) -> str:
        """The one tensor that it reads, or the first of several."""
        return self.inputs[0]

    @abstractmethod
    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the result, of the shapes of its inputs, `[N, C, H, W]`.

        Raises:
            ValueError: the inputs do not fit the operator, or each other.
        """

    @abstractmethod
    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        """The golden rule: the codes written, of the codes read; the arithmetic is exact, or stated in the rule."""

    def least_scales(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[tuple[str, float]]:
        """The least scale of each tensor that some runtime's kernel would otherwise refuse or compute differently.

        A scale below it is raised, which loses less than half a code: only a term that is minute beside the
        other, or a tensor that is constantly zero, has one.
        """
        yield from ()

    def checks(self, reads: Sequence[Quantization], out: Quantization) -> Iterator[Check]:
        """What freezing has to prove."""
        yield from ()
