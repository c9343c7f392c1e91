"""Make the weights in `reference/weights/`: train in float where there are none, tune the int8, write the card.

    python -m litehrnet_stage2.apps.landmarks.ship --work runs/landmarks --out reference/weights

With an empty `--out` it starts from nothing; float weights that are there are tuned anew. Everything is seeded and
nothing follows the clock; the card says what came out.
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
from torch import nn

from litehrnet_stage2.apps.landmarks.metrics import TaskMetrics
from litehrnet_stage2.apps.landmarks.pool import scene_cache
from litehrnet_stage2.apps.landmarks.train import TrainSettings, train
from litehrnet_stage2.apps.landmarks.weight_files import WHOLE, load_stem_and_heads, quantized_network, save_network
from litehrnet_stage2.apps.qat.data import LandmarkSource, WholeNetwork
from litehrnet_stage2.apps.qat.fine_tune import QatSummary, fine_tune
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.apps.qat.ranks import join_ranks
from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.qat import QATStage2

COMMAND = "python -m litehrnet_stage2.apps.landmarks.ship --work runs/landmarks --out reference/weights"
WHOLE_RECIPE = QatConfig(task="landmarks", steps=1200, task_weight=0.1, answer_weight=10.0)
"""What the whole network is tuned with: see docs/qat.md."""
FACTS = "training.json"
"""Beside the weights: what the runs said of themselves, `{"float": ..., "int8": ..., "whole": ...}`, for the card."""


def ship(settings: TrainSettings, config: QatConfig, whole: QatConfig, *, work: Path, out: Path) -> None:
    """Train where `out` has no float weights, tune Stage2 and the whole network, and write weights, facts and card."""
    facts_path = out / FACTS
    if facts_path.exists():
        floating = json.loads(facts_path.read_text())["float"]
    else:
        train(settings, out=work, cache=scene_cache())
        floating = json.loads((work / "summary.json").read_text())
        save_network(load_file(work / "float.safetensors"), out)

    stem, heads = load_stem_and_heads(out / "landmarks.safetensors")
    console = Console(stderr=True)
    source = LandmarkSource.rendered(stem, heads, config, cache=None, say=console.print)
    teacher = load_checkpoint(out / "float.safetensors")
    tuned = fine_tune(teacher, source, config, out=work / "qat", resume=False, ranks=join_ranks(), console=console)
    assert tuned is not None  # one rank: this one
    int8 = load_checkpoint(work / "qat" / "qat.safetensors")
    assert isinstance(int8, QATStage2)
    int8.examples = None  # the photographs that ship are examples enough
    save_checkpoint(int8, out / "int8.safetensors", sqnr_db=(tuned.tuned.sqnr_db["y1"], tuned.tuned.sqnr_db["y2"]))

    source = LandmarkSource.rendered(nn.Identity(), WholeNetwork(), whole, cache=None, say=console.print)
    student = quantized_network(out)
    all_tuned = fine_tune(student, source, whole, out=work / "whole", resume=False, ranks=join_ranks(), console=console)
    assert all_tuned is not None
    for suffix in (".safetensors", ".json"):
        shutil.copyfile((work / "whole" / "qat").with_suffix(suffix), (out / WHOLE).with_suffix(suffix))
    facts = {"float": floating, "int8": dataclasses.asdict(tuned), "whole": dataclasses.asdict(all_tuned)}
    facts_path.write_text(json.dumps(facts, indent=2) + "\n")
    (out / "README.md").write_text(card(floating, tuned, all_tuned))


def card(floating: dict[str, Any], tuned: QatSummary, whole: QatSummary) -> str:
    """The card of the weights, from the summaries of both runs."""
    metrics = TaskMetrics(**floating["metrics"])
    settings = floating["settings"]
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
        f"| `{WHOLE}` | all three as one quantisation-aware network, tuned |",
        "",
        f"Made by `{COMMAND}` on {platform.machine()}, torch {floating['torch']}.",
        "",
        f"- Float: seed {settings['seed']}, {floating['steps']} steps of {settings['batch']} crops of "
        f"{settings['crop_px']} px in {floating['minutes']:.0f} minutes with {floating['threads']} thread(s)."
        + (f" {floating['note']}" if "note" in floating else ""),
        f"- int8: `{tuned.config.task}`, seed {tuned.config.seed}, {tuned.steps} steps of {tuned.config.batch} crops, "
        f"ranges {tuned.config.ranges}, {tuned.threads} thread(s); kept are the weights after {tuned.best_step} steps.",
        f"- int8, whole network: {whole.steps} steps of {whole.config.batch} crops, `task_weight` "
        f"{whole.config.task_weight:g}, `answer_weight` {whole.config.answer_weight:g}, {whole.threads} thread(s); "
        f"kept are the weights after {whole.best_step} steps.",
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
        "SQNR of the integer function against float on held-out maps that chose nothing: calibrated only, "
        f"Y1 {tuned.post_training.sqnr_db['y1']:.2f} dB and Y2 {tuned.post_training.sqnr_db['y2']:.2f} dB; "
        f"tuned, Y1 {tuned.tuned.sqnr_db['y1']:.2f} dB and Y2 {tuned.tuned.sqnr_db['y2']:.2f} dB.",
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
        dataclasses.replace(WHOLE_RECIPE, threads=arguments.threads),
        work=arguments.work,
        out=arguments.out,
    )


if __name__ == "__main__":
    main()
