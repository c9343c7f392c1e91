"""Gives a page the golden inputs as codes, and compares the codes that come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.parity import OutputParity, ParityResult, compare, sqnr_db
from litehrnet_stage2.runtime.session import SessionInfo


@dataclass(frozen=True)
class GoldenCodes:
    """What a browser is given, and what it has to give back.

    Attributes:
        inputs, outputs: names, shapes (batch 1) and quantisation.
        given: of each input, int8 `[N, ...]`.
        wanted: of each output, int8 `[N, ...]`; never sent.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    given: tuple[Codes, ...]
    wanted: tuple[Codes, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> GoldenCodes:
        """Those of a bundle.

        Raises:
            BundleError: its golden file is missing or changed.
        """
        golden, manifest = bundle.golden(), bundle.manifest
        return cls(manifest.inputs, manifest.outputs, tuple(golden.inputs.values()), tuple(golden.outputs.values()))

    @property
    def images(self) -> int:
        """How many inputs there are."""
        return len(self.given[0])

    @property
    def answer_bytes(self) -> int:
        """Bytes of the codes of all outputs for one input."""
        return sum(codes[0].nbytes for codes in self.wanted)

    def question(self, index: int) -> bytes:
        """The codes of all inputs, one after another."""
        return b"".join(codes[index].tobytes() for codes in self.given)

    def split(self, answer: bytes) -> tuple[Codes, ...]:
        """The codes of each output for one input, from `answer_bytes` bytes."""
        parts, start = [], 0
        for codes in self.wanted:
            one = codes[0]
            parts.append(np.frombuffer(answer, np.int8, one.size, start).reshape(one.shape))
            start += one.nbytes
        return tuple(parts)

    def compare_one(self, index: int, found: Sequence[Codes]) -> tuple[OutputParity, ...]:
        """The codes of each output for input `index`, against the golden ones."""
        return tuple(
            compare(a, b[index], zero_point=spec.zero_point)
            for a, b, spec in zip(found, self.wanted, self.outputs, strict=True)
        )

    def compare_all(self, info: SessionInfo, differing: Mapping[int, Sequence[Codes]]) -> ParityResult:
        """Every input; `differing` has the codes of those where they are not the golden ones."""
        found = [codes.copy() for codes in self.wanted]
        for index, answer in differing.items():
            for codes, one in zip(found, answer, strict=True):
                codes[index] = one
        return ParityResult(
            session=info,
            images=self.images,
            outputs={
                spec.name: compare(a, b, zero_point=spec.zero_point)
                for a, b, spec in zip(found, self.wanted, self.outputs, strict=True)
            },
            codes_sha256=golden.codes_sha256(*found),
            golden_sha256=golden.codes_sha256(*self.wanted),
        )

    def total(self, parts: Sequence[tuple[OutputParity, ...]]) -> dict[str, OutputParity]:
        """What `compare_one` found for every input, as one figure an output."""
        return {
            spec.name: _sum([part[i] for part in parts], self.wanted[i].astype(np.float64) - spec.zero_point)
            for i, spec in enumerate(self.outputs)
        }


def _sum(parts: Sequence[OutputParity], signal: NDArray[np.float64]) -> OutputParity:
    histogram: Counter[int] = Counter()
    for part in parts:
        histogram.update(part.histogram)
    mismatches = sum(part.mismatches for part in parts)
    noise = np.repeat(list(histogram), list(histogram.values()))
    return OutputParity(
        compared=sum(part.compared for part in parts),
        mismatches=mismatches,
        max_lsb=max(part.max_lsb for part in parts),
        histogram=dict(sorted(histogram.items())),
        sqnr_db=sqnr_db(signal, noise) if mismatches and signal.any() else None,
    )
