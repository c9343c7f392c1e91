"""Judge a network in float, calibrated, tuned and in every runtime by one's own metric, in one table.

rows = evaluate(
    {"float": network, "int8, post-training": calibrated, "int8, tuned": tuned, "bundle": Path("bundle")},
    batches,
    metric,
)
print(to_markdown(rows))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.runtime import Session, open_session
from litehrnet_stage2.runtime.program import Floats

Outputs: TypeAlias = tuple[Floats, ...]
Inputs: TypeAlias = Floats | tuple[Floats, ...]
Predict: TypeAlias = Callable[[Inputs], Outputs]
Metric: TypeAlias = Callable[[Iterable[tuple[Outputs, Any]]], Mapping[str, float]]
"""A person's own metric: takes what a network answered and the labels, batch by batch; returns named figures."""

RUNTIMES = ("executorch", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One candidate's figures.

    Attributes:
        name: of the candidate; of a bundle's, with the runtime after a comma.
        figures: what the metric returned.
        sqnr_db: of each output against the first candidate's, on the first inputs; None for the first itself.
    """

    name: str
    figures: Mapping[str, float]
    sqnr_db: tuple[float, ...] | None


def evaluate(
    candidates: Mapping[str, nn.Module | Path | Predict],
    batches: Iterable[tuple[Inputs, Any]],
    metric: Metric,
    *,
    runtimes: Sequence[str] = RUNTIMES,
    sqnr_inputs: int = 64,
) -> tuple[Row, ...]:
    """Run every candidate over the same batches and score it.

    Args:
        candidates: by name. A float module is run as it is; a calibrated or tuned one is frozen and run as the
            integer function, which is what every runtime computes; a bundle's folder is opened in each runtime;
            anything else is called with the inputs. The first, normally the float network, is what the signal to
            noise ratios are taken against.
        batches: pairs of inputs float32, batch first (a tuple of them for a network with several), and labels of any
            kind; gone through once per candidate.
        metric: see `Metric`.
        runtimes: that a bundle is opened in.
        sqnr_inputs: on so many of the first inputs are the signal to noise ratios taken.

    Raises:
        InputError: no candidate, or batches that can be gone through only once.
    """
    if not candidates:
        raise InputError("no candidate to evaluate: name at least one network or bundle")
    if iter(batches) is batches:
        raise InputError("`batches` can be gone through once, and every candidate needs them: pass a list or a loader")
    rows: list[Row] = []
    reference: list[Outputs] = []
    for name, run in _runs(candidates, runtimes):
        noise = _Noise(reference, sqnr_inputs, is_reference=not rows)
        figures = dict(metric(noise.watch(run, batches)))
        rows.append(Row(name, figures, noise.sqnr_db()))
    return tuple(rows)


def to_markdown(
    rows: Sequence[Row], formats: Mapping[str, str] | None = None, outputs: Sequence[str] | None = None
) -> str:
    """A table of the rows.

    Args:
        rows: as `evaluate` returns them.
        formats: of a figure its format and unit, as in `{"error": "{:.3f} px"}`; four digits where none is given.
        outputs: names of the outputs; by default they are numbered.
    """
    formats = formats or {}
    count = max((len(row.sqnr_db) for row in rows if row.sqnr_db), default=0)
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    header = ["network", *(f"SQNR {name}" for name in (outputs or range(1, count + 1))), *names]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        ratios = [f"{value:.2f} dB" for value in row.sqnr_db] if row.sqnr_db else [""] * count
        shown = {name: formats.get(name, "{:.4g}").format(value) for name, value in row.figures.items()}
        lines.append([row.name, *ratios, *(shown.get(name, "") for name in names)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


class _Noise:
    """Watches a candidate's outputs beside the reference's, on the first inputs; the reference fills the list."""

    def __init__(self, reference: list[Outputs], inputs: int, *, is_reference: bool) -> None:
        self._reference, self._left, self._is_reference = reference, inputs, is_reference
        self._noise: list[float] = []
        self._signal: list[float] = []

    def watch(self, run: Predict, batches: Iterable[tuple[Inputs, Any]]) -> Iterator[tuple[Outputs, Any]]:
        for index, (inputs, labels) in enumerate(batches):
            outputs = run(inputs)
            if self._left > 0:
                kept = tuple(y[: self._left] for y in outputs)
                self._left -= len(outputs[0])
                if self._is_reference:
                    self._reference.append(kept)
                else:
                    self._compare(kept, self._reference[index])
            yield outputs, labels

    def _compare(self, outputs: Outputs, wanted: Outputs) -> None:
        if not self._noise:
            self._noise, self._signal = [0.0] * len(outputs), [0.0] * len(outputs)
        for i, (y, want) in enumerate(zip(outputs, wanted, strict=True)):
            self._noise[i] += float(np.square(y.astype(np.float64) - want).sum())
            self._signal[i] += float(np.square(want.astype(np.float64)).sum())

    def sqnr_db(self) -> tuple[float, ...] | None:
        if self._is_reference:
            return None
        return tuple(
            10 * math.log10(signal / noise) if noise and signal else math.inf
            for noise, signal in zip(self._noise, self._signal, strict=True)
        )


def _runs(
    candidates: Mapping[str, nn.Module | Path | Predict], runtimes: Sequence[str]
) -> Iterator[tuple[str, Predict]]:
    for name, candidate in candidates.items():
        match candidate:
            case Path():
                for runtime in runtimes:
                    yield f"{name}, {runtime}", _snapping(open_session(candidate, runtime))
            case QATStage2() | QuantizedNetwork():
                yield name, _integer_network(candidate)
            case nn.Module():
                yield name, _float_network(candidate.eval())
            case _:
                yield name, candidate


def _integer_network(network: QATStage2 | QuantizedNetwork) -> Predict:
    """The golden evaluator in the place of a network: it is frozen for the size of the first inputs."""
    function: IntegerFunction | None = None

    def run(inputs: Inputs) -> Outputs:
        nonlocal function
        arrays = _each(inputs)
        if function is None:
            function, _ = freeze(network, *(x.shape for x in arrays))
        read, written = function.quantization, function.outputs
        codes = golden.evaluate(
            function, *(read[name].quantize(x) for name, x in zip(function.inputs, arrays, strict=True))
        )
        return tuple(read[tensor].dequantize(codes[name]) for name, tensor in written.items())

    return run


def _float_network(network: nn.Module) -> Predict:
    def run(inputs: Inputs) -> Outputs:
        with torch.no_grad():
            outputs = network(*(torch.from_numpy(x) for x in _each(inputs)))
        if isinstance(outputs, torch.Tensor):
            outputs = (outputs,)
        return tuple(y.numpy() for y in (outputs.values() if isinstance(outputs, Mapping) else outputs))

    return run


def _each(inputs: Inputs) -> tuple[Floats, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _snapping(session: Session) -> Predict:
    """Run a session on inputs that lie on its input grid, so that all runtimes and golden see the same codes."""
    q = session.info.inputs[0].quantization

    def run(inputs: Inputs) -> Outputs:
        (features,) = _each(inputs)
        return session.run(q.dequantize(q.quantize(features)))

    return run
