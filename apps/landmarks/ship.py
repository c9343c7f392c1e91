"""Make the weights in `reference/weights/` from nothing: train in float, tune the int8, write the card.

    python -m litehrnet_stage2.apps.landmarks.ship --work runs/landmarks --out reference/weights

A float training that has finished in `--work` is used as it is. Everything is seeded; the card says what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from litehrnet_stage2.apps.landmarks.metrics import TaskMetrics
from litehrnet_stage2.apps.landmarks.pool import rendered
from litehrnet_stage2.apps.landmarks.train import TEST_SEED, TRAIN_SEED, TrainSettings, train
from litehrnet_stage2.apps.landmarks.weights import load_stem_and_heads, save_network
from litehrnet_stage2.apps.qat.config import QatConfig
from litehrnet_stage2.apps.qat.data import LandmarkSource
from litehrnet_stage2.apps.qat.fine_tune import QatSummary, fine_tune
from litehrnet_stage2.apps.qat.ranks import join_ranks
from litehrnet_stage2.reference.checkpoint import load_checkpoint

COMMAND = "python -m litehrnet_stage2.apps.landmarks.ship --work runs/landmarks --out reference/weights"


def ship(settings: TrainSettings, config: QatConfig, *, work: Path, out: Path) -> None:
    """Train, tune, and write `float`, `int8` and `landmarks` weights with `README.md` into `out`."""
    pool_folder, summary_path = work / "pool", work / "summary.json"
    if not summary_path.exists():
        train(settings, out=work, cache=pool_folder)
    floating = json.loads(summary_path.read_text())
    save_network(load_file(work / "float.safetensors"), out)

    stem, heads = load_stem_and_heads(out / "landmarks.safetensors")
    pool = rendered("train", count=settings.scenes, seed=TRAIN_SEED, folder=pool_folder)
    held_out = rendered("test", count=settings.test_scenes, seed=TEST_SEED, folder=pool_folder)
    source = LandmarkSource(pool, held_out, stem, heads, config)
    teacher = load_checkpoint(out / "float.safetensors")
    tuned = fine_tune(
        teacher, source, config, out=work / "qat", resume=False, ranks=join_ranks(), console=Console(stderr=True)
    )
    assert tuned is not None  # one rank: this one
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(work / "qat" / f"qat{suffix}", out / f"int8{suffix}")
    (out / "README.md").write_text(card(floating, tuned))


def card(floating: dict[str, Any], tuned: QatSummary) -> str:
    """The card of the weights, from the summaries of both runs."""
    metrics = TaskMetrics(**floating["metrics"])
    settings = TrainSettings(**floating["settings"])
    lines = [
        "# Trained weights",
        "",
        "Stage2 trained on the landmark task of `apps/landmarks/`: find the centre of a notched disc in a photograph,",
        "among discs and squares that resemble it.",
        "",
        "| file | what |",
        "|---|---|",
        "| `float.safetensors` | float Stage2 |",
        "| `int8.safetensors` | quantisation-aware Stage2, tuned: freeze it for the integer function |",
        "| `landmarks.safetensors` | the stem before Stage2 and the heads after it, float |",
        "",
        f"Made by `{COMMAND}` on {platform.machine()}, torch {floating['torch']}.",
        "",
        f"- Float: seed {settings.seed}, {floating['steps']} steps of {settings.batch} crops of {settings.crop_px} px "
        f"in {floating['minutes']:.0f} minutes with {floating['threads']} thread(s). The schedule ends at "
        f"{settings.steps} steps or {settings.minutes:.0f} minutes, whichever is first: a faster machine takes more.",
        f"- int8: `{tuned.config.task}`, seed {tuned.config.seed}, {tuned.steps} steps, ranges "
        f"{tuned.config.ranges.replace('_', ' ')}, {tuned.seconds / 60:.0f} minutes, {tuned.threads} thread(s).",
        "- Photographs: those in the scikit-image and scikit-learn wheels; every third name is held out.",
        "",
        f"On {metrics.scenes} scenes from held-out photographs, float:",
        "",
        f"- centre found within 8 px: {metrics.detection:.1%}",
        f"- error of the found: mean {metrics.error_mean_px:.2f} px, median {metrics.error_median_px:.2f} px, "
        f"p95 {metrics.error_p95_px:.2f} px",
        f"- within 2 px, of all: {metrics.within_2px:.1%}",
        f"- marker told from decoy: {metrics.decoy_accuracy:.1%}",
        "",
        "SQNR of the integer function against float on held-out features: calibrated only, "
        f"Y1 {tuned.post_training.y1_db:.2f} dB and Y2 {tuned.post_training.y2_db:.2f} dB; "
        f"tuned, Y1 {tuned.tuned.y1_db:.2f} dB and Y2 {tuned.tuned.y2_db:.2f} dB.",
        "The task's figures of both int8 forms are in `benchmarks/qat.md`.",
        "",
        "The weights are under the project's licence. The task is synthetic: they show that the tool works on a",
        "trained network, and are no substitute for one trained on your data.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line and make the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for scenes, runs and logs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and their card")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: its own choice")
    arguments = parser.parse_args()
    ship(
        dataclasses.replace(TrainSettings(), threads=arguments.threads),
        QatConfig(task="landmarks", threads=arguments.threads),
        work=arguments.work,
        out=arguments.out,
    )


if __name__ == "__main__":
    main()
