"""Train the float network of the example task: one command, seeded, on two cores in about an hour.

    python -m litehrnet_stage2.apps.landmarks.train --out runs/landmarks

Crops of 128 px hold nearly all that a 256x512 image teaches at an eighth of its cost. Nothing follows the clock:
the same settings and threads give the same weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from litehrnet_stage2.apps.landmarks.landmark_net import LandmarkNet, answers
from litehrnet_stage2.apps.landmarks.loss import task_loss
from litehrnet_stage2.apps.landmarks.metrics import TaskMetrics, task_metrics
from litehrnet_stage2.apps.landmarks.pool import TEST_SEED, TRAIN_SEED, Pool, batches, crops, rendered


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Every knob of the float training, with its unit.

    Attributes:
        seed: of the initial weights and of the augmentation.
        scenes: rendered ahead for training.
        test_scenes: rendered from the held-out photographs.
        steps: optimiser steps.
        batch: crops a step.
        crop_px: side of a crop.
        learning_rate: at its peak.
        warmup: share of the progress in which the rate rises.
        weight_decay: of AdamW.
        clip_norm: bound on the gradient's norm.
        ema_decay: of the averaged weights, a step.
        evaluate_every: steps between looks at the held-out scenes; nothing is chosen by them.
        threads: of PyTorch on a CPU; 0 is its own choice. On shared cores 1 can be the fastest.
    """

    seed: int = 0
    scenes: int = 8000
    test_scenes: int = 500
    steps: int = 7000
    batch: int = 32
    crop_px: int = 128
    learning_rate: float = 4e-3
    warmup: float = 0.04
    weight_decay: float = 0.02
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    evaluate_every: int = 1000
    threads: int = 0


def learning_rate_factor(progress: float, *, warmup: float) -> float:
    """Linear rise over `warmup`, then half a cosine to zero; `progress` runs from 0 to 1."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min((progress - warmup) / (1 - warmup), 1.0)))


def train(settings: TrainSettings, *, out: Path, cache: Path) -> TaskMetrics:
    """Train, and leave `out/float.safetensors` (averaged weights), `out/log.jsonl` and `out/summary.json`."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    pool = rendered("train", count=settings.scenes, seed=TRAIN_SEED, folder=cache)
    held_out = rendered("test", count=settings.test_scenes, seed=TEST_SEED, folder=cache)
    torch.manual_seed(settings.seed)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = LandmarkNet().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        fused=True,
    )
    average = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    metrics = None
    recent: list[float] = []
    with (out / "log.jsonl").open("a") as log:
        for step, (images, shapes) in enumerate(_stream(pool, settings, device)):
            progress = step / settings.steps
            done = step == settings.steps
            if done or (step and step % settings.evaluate_every == 0):
                save_file({name: value.contiguous() for name, value in average.items()}, out / "float.safetensors")
                metrics = score(average, held_out)
                entry = {
                    "step": step,
                    "minutes": round((time.monotonic() - started) / 60, 2),
                    "loss": float(np.mean(recent)) if recent else None,
                }
                log.write(json.dumps(entry | dataclasses.asdict(metrics)) + "\n")
                log.flush()
                recent.clear()
            if done:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(progress, warmup=settings.warmup)
            with torch.autocast(device.type, torch.bfloat16):
                prediction = network(images)
            loss = task_loss(prediction, shapes)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            recent.append(loss.item())
            decay = min(settings.ema_decay, (step + 1) / (step + 10))
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)
    assert metrics is not None  # the loop ends on an evaluation
    summary = {
        "settings": dataclasses.asdict(settings),
        "metrics": dataclasses.asdict(metrics),
        "steps": step,
        "minutes": (time.monotonic() - started) / 60,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return metrics


def score(weights: dict[str, Tensor], pool: Pool) -> TaskMetrics:
    """The figures of a network with these weights on whole scenes, in float32."""
    network = LandmarkNet()
    network.load_state_dict(weights)
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return task_metrics(answers(network, batches(pool, batch=10)))


def _stream(pool: Pool, settings: TrainSettings, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng((settings.seed, 7))
    while True:
        images, shapes = crops(pool, rng, batch=settings.batch, height=settings.crop_px, width=settings.crop_px)
        pixels = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
        yield pixels.float() / 255, torch.from_numpy(shapes).to(device)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, log and summary")
    parser.add_argument("--cache", type=Path, help="folder for rendered scenes (default: OUT/pool)")
    for field in dataclasses.fields(TrainSettings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    arguments = vars(parser.parse_args())
    out, cache = arguments.pop("out"), arguments.pop("cache")
    print(json.dumps(dataclasses.asdict(train(TrainSettings(**arguments), out=out, cache=cache or out / "pool"))))


if __name__ == "__main__":
    main()
