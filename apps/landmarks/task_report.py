"""Float, post-training int8 and tuned int8 on the same held-out scenes, as JSON and as a Markdown table.

The int8 rows are the integer function itself, run by the golden evaluator: what every runtime computes. The last
rows are the tuned network's artifacts in the runtimes themselves, on the same features snapped to the input grid.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litehrnet_stage2.apps import evaluation
from litehrnet_stage2.apps.evaluation import Outputs, Row
from litehrnet_stage2.apps.landmarks.landmark_net import Heads, Prediction, Stem
from litehrnet_stage2.apps.landmarks.metrics import task_metrics
from litehrnet_stage2.apps.landmarks.pool import TEST_SEED, TRAIN_SEED, Pool, batches, rendered
from litehrnet_stage2.apps.landmarks.weight_files import load_stem_and_heads
from litehrnet_stage2.apps.landmarks.whole_report import OUTPUTS, compare_whole
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.apps.qat.ranges import calibrate
from litehrnet_stage2.reference.checkpoint import load_checkpoint
from litehrnet_stage2.reference.contract.artifacts import RUNTIMES
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime.program import Floats

CALIBRATION_SCENES = 64
SQNR_SCENES = 64
RUNTIME_TARGETS = {
    name: runtime.artifact.name for name, runtime in RUNTIMES.items() if runtime.artifact is not None and runtime.exact
}
"""Runtimes that the report can evaluate in, and the artifact each opens."""

_SHOWN = {
    "detection": ("detection", "{:.1%}"),
    "error_mean_px": ("error mean", "{:.3f} px"),
    "error_p95_px": ("error p95", "{:.3f} px"),
    "within_2px": ("within 2 px", "{:.1%}"),
    "decoy_accuracy": ("decoy accuracy", "{:.1%}"),
}
"""Of the figures that the table shows, the heading and the format."""

_BATCH = 10


@dataclass(frozen=True)
class TaskReport:
    """The rows of Stage2 alone and of the whole network, in order, and what they were made with."""

    rows: tuple[Row, ...]
    whole_rows: tuple[Row, ...]
    scenes: int
    sqnr_scenes: int
    calibration_scenes: int
    torch: str


def compare(
    folder: Path,
    *,
    cache: Path,
    scenes: int,
    runtimes: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> TaskReport:
    """Evaluate the weights in `folder` on `scenes` held-out scenes, in `runtimes` of `RUNTIME_TARGETS` too."""
    stem, heads = load_stem_and_heads(folder / "landmarks.safetensors")
    teacher, tuned = (load_checkpoint(folder / f"{name}.safetensors") for name in ("float", "int8"))
    if not isinstance(tuned, QATStage2):
        raise InputError(f"{folder / 'int8.safetensors'} is a float checkpoint: expected a quantisation-aware one")
    held_out = rendered("test", count=scenes, seed=TEST_SEED, folder=cache, say=say)
    calibration = rendered("train", count=CALIBRATION_SCENES, seed=TRAIN_SEED, folder=cache, say=say)

    seen = torch.from_numpy(np.concatenate([features for features, _ in StemBatches(stem, calibration)]))
    plain, floored = QATStage2.from_float(teacher).calibrate(seen), QATStage2.from_float(teacher)
    calibrate(floored, seen, quantile=1.0, silu_floor=QatConfig().silu_floor)
    with _bundle(tuned, seen[:1], teacher, runtimes) as bundle:
        rows = evaluation.evaluate(
            {
                "float": teacher,
                "int8, post-training": plain,
                "int8, post-training, floors raised": floored,
                "int8, QAT": tuned,
                **({"QAT bundle": bundle} if bundle else {}),
            },
            StemBatches(stem, held_out),
            through_heads(heads),
            runtimes=runtimes,
            sqnr_inputs=SQNR_SCENES,
        )
    say("the whole network, from pixels to answer")
    targets = {name: RUNTIME_TARGETS[name] for name in runtimes}
    whole_rows = compare_whole(folder, held_out, calibration, targets=targets, sqnr_scenes=SQNR_SCENES)
    return TaskReport(rows, whole_rows, scenes, min(scenes, SQNR_SCENES), CALIBRATION_SCENES, torch.__version__)


class StemBatches:
    """What the stem makes of a pool's scenes, with the scenes' shapes; can be gone through any number of times."""

    def __init__(self, stem: Stem, pool: Pool) -> None:
        self._stem, self._pool = stem, pool

    def __iter__(self) -> Iterator[tuple[Floats, Floats]]:
        for images, shapes in batches(self._pool, batch=_BATCH):
            with torch.no_grad():
                features: Tensor = self._stem(torch.from_numpy(np.array(images)).float() / 255)
            yield features.numpy(), shapes


def through_heads(heads: Heads) -> evaluation.Metric:
    """The task's figures of what the heads read from Y1 and Y2."""

    def metric(answers: Iterable[tuple[Outputs, Any]]) -> Mapping[str, float]:
        @torch.no_grad()
        def read(outputs: Outputs) -> tuple[Floats, Floats, Floats]:
            prediction: Prediction = heads(*(torch.from_numpy(y) for y in outputs))
            return prediction.arrays()

        return dataclasses.asdict(task_metrics((read(outputs), shapes) for outputs, shapes in answers))

    return metric


def to_markdown(report: TaskReport) -> str:
    """Two tables: Stage2 alone is int8, and the whole network is."""

    def table(rows: Sequence[Row], outputs: Sequence[str]) -> str:
        shown = [
            dataclasses.replace(row, figures={heading: row.figures[name] for name, (heading, _) in _SHOWN.items()})
            for row in rows
        ]
        return evaluation.to_markdown(shown, dict(_SHOWN.values()), outputs)

    return (
        f"Stage2 in int8, what is around it in float:\n\n{table(report.rows, ('Y1', 'Y2'))}\n"
        f"The whole network in int8, from pixels to answer:\n\n{table(report.whole_rows, OUTPUTS)}"
    )


def write_report(report: TaskReport, path: Path) -> None:
    """Write `path` (JSON) and the table beside it (`.md`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n")
    path.with_suffix(".md").write_text(to_markdown(report))


@contextmanager
def _bundle(tuned: QATStage2, features: Tensor, teacher: Stage2, runtimes: Sequence[str]) -> Iterator[Path | None]:
    """A bundle of the tuned network with the artifacts that the runtimes open."""
    if not runtimes:
        yield None
        return
    from litehrnet_stage2.converters.write_bundle import write_bundle

    @torch.no_grad()
    def float_network(x: Floats) -> tuple[Floats, Floats]:
        y1, y2 = teacher(torch.from_numpy(x))
        return y1.numpy(), y2.numpy()

    function, proof = freeze(tuned, features.shape)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        targets = [RUNTIME_TARGETS[name] for name in runtimes]
        write_bundle(function, proof, features.numpy(), bundle, float_network=float_network, targets=targets)
        yield bundle
