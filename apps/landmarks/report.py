"""Float, post-training int8 and tuned int8 on the same held-out scenes, as JSON and as a Markdown table.

The int8 rows are the integer function itself, run by the golden evaluator: what every runtime computes. The last
rows are the tuned network's artifacts in the runtimes themselves, on the same features snapped to the input grid.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from litehrnet_stage2.apps.landmarks.metrics import TaskMetrics, task_metrics
from litehrnet_stage2.apps.landmarks.network import Heads, Prediction, Stem, answers
from litehrnet_stage2.apps.landmarks.pool import batches, rendered
from litehrnet_stage2.apps.landmarks.train import TEST_SEED, TRAIN_SEED
from litehrnet_stage2.apps.landmarks.weights import load_stem_and_heads
from litehrnet_stage2.apps.qat.config import QatConfig
from litehrnet_stage2.apps.qat.fine_tune import Sqnr, golden_sqnr
from litehrnet_stage2.apps.qat.ranges import calibrate
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.checkpoint import load_checkpoint
from litehrnet_stage2.reference.contract.artifacts import RUNTIMES
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.freeze import Proof, freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime import Session

CALIBRATION_SCENES = 64
SQNR_SCENES = 64
RUNTIME_TARGETS = {
    name: runtime.artifact.name for name, runtime in RUNTIMES.items() if runtime.artifact is not None and runtime.exact
}
"""Runtimes that the report can evaluate in, and the artifact each opens."""

_BATCH = 10


@dataclass(frozen=True)
class Row:
    """One network's figures; `sqnr`, against float, is None where it is not taken."""

    name: str
    metrics: TaskMetrics
    sqnr: Sqnr | None


@dataclass(frozen=True)
class Report:
    """The rows in order, and what they were made with."""

    rows: tuple[Row, ...]
    scenes: int
    sqnr_scenes: int
    calibration_scenes: int
    torch: str


def compare(folder: Path, *, cache: Path, scenes: int, runtimes: Sequence[str] = ()) -> Report:
    """Evaluate the weights in `folder` on `scenes` held-out scenes, in `runtimes` of `RUNTIME_TARGETS` too."""
    stem, heads = load_stem_and_heads(folder / "landmarks.safetensors")
    teacher, tuned = (
        load_checkpoint(folder / "float.safetensors"),
        load_checkpoint(folder / "int8.safetensors"),
    )
    if not isinstance(tuned, QATStage2):
        raise InputError(f"{folder / 'int8.safetensors'} is a float checkpoint: expected a quantisation-aware one")
    held_out = rendered("test", count=scenes, seed=TEST_SEED, folder=cache)
    calibration = rendered("train", count=CALIBRATION_SCENES, seed=TRAIN_SEED, folder=cache)

    seen = _features(stem, calibration.images)
    plain, floored = QATStage2.from_float(teacher).calibrate(seen), QATStage2.from_float(teacher)
    calibrate(floored, seen, quantile=1.0, silu_floor=QatConfig().silu_floor)
    features = _features(stem, held_out.images[:SQNR_SCENES])
    rows = [Row("float", task_metrics(answers(_through(stem, teacher, heads), batches(held_out, batch=_BATCH))), None)]
    students = {
        "int8, post-training": plain,
        "int8, post-training, floors raised": floored,
        "int8, QAT": tuned,
    }
    for name, student in students.items():
        function, proof = freeze(student, features.shape)
        metrics = task_metrics(
            answers(_through(stem, integer_stage2(function), heads), batches(held_out, batch=_BATCH))
        )
        rows.append(Row(name, metrics, golden_sqnr(student, teacher, features)))
    with _sessions(function, proof, features[:1], teacher, runtimes) as opened:
        for name, session in opened.items():
            stage2 = _runtime_stage2(session, function.input_quantization)
            metrics = task_metrics(answers(_through(stem, stage2, heads), batches(held_out, batch=_BATCH)))
            rows.append(Row(f"int8, QAT, {name}", metrics, None))
    return Report(tuple(rows), scenes, len(features), CALIBRATION_SCENES, torch.__version__)


def integer_stage2(function: IntegerFunction) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The golden evaluator in the place of a Stage2: float features in, float outputs out."""

    def run(features: Tensor) -> tuple[Tensor, Tensor]:
        codes = golden.evaluate(function, function.input_quantization.quantize(features.numpy()))
        y1, y2 = (torch.from_numpy(q.dequantize(codes[name])) for name, q in function.output_quantization.items())
        return y1, y2

    return run


def to_markdown(report: Report) -> str:
    """A table for the README."""
    lines = [
        "| network | SQNR Y1 | SQNR Y2 | detection | error mean | error p95 | within 2 px | decoy accuracy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        y1, y2 = (f"{row.sqnr.y1_db:.2f} dB", f"{row.sqnr.y2_db:.2f} dB") if row.sqnr else ("", "")
        m = row.metrics
        lines.append(
            f"| {row.name} | {y1} | {y2} | {m.detection:.1%} | {m.error_mean_px:.3f} px | "
            f"{m.error_p95_px:.3f} px | {m.within_2px:.1%} | {m.decoy_accuracy:.1%} |"
        )
    return "\n".join(lines) + "\n"


def write_report(report: Report, path: Path) -> None:
    """Write `path` (JSON) and the table beside it (`.md`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    path.with_suffix(".md").write_text(to_markdown(report))


@contextmanager
def _sessions(
    function: IntegerFunction, proof: Proof, features: Tensor, teacher: Stage2, runtimes: Sequence[str]
) -> Iterator[dict[str, Session]]:
    """The function's artifacts, opened in each runtime."""
    if not runtimes:
        yield {}
        return
    from litehrnet_stage2.converters.bundle import write_bundle
    from litehrnet_stage2.runtime import open_session

    def float_network(x: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        y1, y2 = teacher(torch.from_numpy(x))
        return y1.detach().numpy(), y2.detach().numpy()

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        targets = [RUNTIME_TARGETS[name] for name in runtimes]
        write_bundle(function, proof, features.numpy(), bundle, float_network=float_network, targets=targets)
        yield {name: open_session(bundle, name) for name in runtimes}


def _runtime_stage2(session: Session, q: Quantization) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def run(features: Tensor) -> tuple[Tensor, Tensor]:
        y1, y2 = session.run(q.dequantize(q.quantize(features.numpy())))
        return torch.from_numpy(y1), torch.from_numpy(y2)

    return run


def _through(
    stem: Stem, stage2: Callable[[Tensor], tuple[Tensor, Tensor]] | nn.Module, heads: Heads
) -> Callable[[Tensor], Prediction]:
    def predict(images: Tensor) -> Prediction:
        prediction: Prediction = heads(*stage2(stem(images)))
        return prediction

    return predict


@torch.no_grad()
def _features(stem: Stem, images: npt.NDArray[np.uint8]) -> Tensor:
    return torch.cat([stem(torch.from_numpy(images[i : i + 8].copy()).float() / 255) for i in range(0, len(images), 8)])
