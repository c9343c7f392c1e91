"""Fine-tune a quantised Stage2 or whole network until its int8 is as good as the float network it came from.

Read `fine_tune` from top to bottom: fold and calibrate, take the steps, keep the average of the weights, and
score the result with the golden integer evaluator. Every knob is in `QatConfig`.
"""

from __future__ import annotations

import copy
import dataclasses
import errno
import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from litehrnet_stage2.apps.qat.data import Source
from litehrnet_stage2.apps.qat.held_out import (
    Figures,
    HeldOut,
    Objective,
    Student,
    as_real,
    decibel,
    output_tensors,
    run_in_parts,
)
from litehrnet_stage2.apps.qat.log import RunLog, plot
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.apps.qat.ranges import calibrate
from litehrnet_stage2.apps.qat.ranks import Ranks
from litehrnet_stage2.apps.qat.run_checkpoint import (
    Checkpoint,
    newest_checkpoint,
    write_checkpoint,
)
from litehrnet_stage2.apps.qat.run_state import RunState
from litehrnet_stage2.reference.checkpoint import save_checkpoint
from litehrnet_stage2.reference.errors import InputError, Stage2Error
from litehrnet_stage2.reference.files import write_whole
from litehrnet_stage2.reference.input_statistics import InputStatistics, input_statistics, unusual_inputs
from litehrnet_stage2.reference.network import QuantizedNetwork
from litehrnet_stage2.reference.network_checkpoint import save_network_checkpoint
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.quantizers import Mode, keep_scales_positive, learn_step_sizes, set_mode
from litehrnet_stage2.reference.stage2 import Stage2


class QatError(Stage2Error):
    """Training stopped early, for a reason it states; the checkpoints written before are whole."""


@dataclass(frozen=True, kw_only=True)
class QatSummary:
    """What a run achieved, on held-out maps that chose nothing.

    Attributes:
        post_training: calibrated to the extremes of the activations, not tuned: what `stage2 convert` would make.
        tuned: the weights that were kept.
        input_statistics: of the features, beside what the teacher saw in training.
        best_step: after how many steps the kept weights were taken; 0 is the calibrated start.
        steps: steps done in all, `first_step` of them before this process.
        seconds: wall clock of this process.
    """

    post_training: Figures
    tuned: Figures
    input_statistics: tuple[InputStatistics, ...]
    best_step: int
    first_step: int
    steps: int
    seconds: float
    ranks: int
    device: str
    threads: int
    torch: str
    config: QatConfig

    @property
    def won(self) -> bool:
        """Whether tuning came nearer to what it was asked for than calibration alone."""
        return self.tuned.loss < self.post_training.loss


def fine_tune(
    teacher: Stage2 | QuantizedNetwork,
    source: Source,
    config: QatConfig,
    *,
    out: Path,
    resume: bool,
    ranks: Ranks,
    console: Console,
    trained: nn.Module | None = None,
) -> QatSummary | None:
    """Fine-tune a student of `teacher`, a float Stage2 or what `quantize` made; leave weights, log and plot in `out`.

    `trained` is the network that `quantize` was given: the inputs are compared with what its BatchNorms saw, which are
    folded in `teacher`.

    Every `choose_every` steps the averaged weights are tried on held-out maps, and the best so far are kept; the
    start counts too. The other held-out maps then compare them with post-training int8.

    Files: `qat.safetensors` with its JSON (a `QATStage2`, or a checkpoint of the network), `summary.json`,
    `metrics.csv`, `plot.png`, `tensorboard/`, `checkpoints/`. With `resume` the run goes on from the newest whole
    checkpoint and, on a CPU with the same threads, ends with the bytes of one that was never stopped. The first rank
    returns the summary, the others nothing.

    Raises:
        QatError: the loss is not finite or has diverged, the disk is full, the ranks disagree, or the
            checkpoint to resume from belongs to another run.
        ValueError: the batch cannot be divided over the ranks, or `out` holds a run and `resume` is not set.
    """
    started = time.monotonic()
    if config.batch % ranks.count:
        raise InputError(f"`batch` (={config.batch}) must be a multiple of the number of ranks ({ranks.count})")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoints = out / "checkpoints"
    student: Student
    if isinstance(teacher, QuantizedNetwork):
        student, outputs = copy.deepcopy(teacher).to(ranks.device), teacher.output_names
        set_mode(teacher, Mode.FLOAT)
    else:
        student, outputs = QATStage2.from_float(teacher.to(ranks.device)).to(ranks.device), ("y1", "y2")
    teacher = teacher.eval().requires_grad_(False).to(ranks.device)

    calibration = source.calibration().to(ranks.device)
    statistics = input_statistics((trained or teacher).to(ranks.device), as_real(calibration))
    if ranks.first and (warning := unusual_inputs(statistics)):
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    powers = [float(y.square().mean()) for y in run_in_parts(teacher, calibration)]
    objective = Objective(source, powers, config)
    held_out = HeldOut(source, teacher, objective, ranks.device)
    post_training = held_out.figures(student.calibrate(calibration)) if ranks.first else None
    calibrate(student, calibration, quantile=config.calibration_quantile, silu_floor=config.silu_floor)

    optimizer = _optimizer(student, config)
    rates = [group["lr"] for group in optimizer.param_groups]
    state = RunState(student, optimizer)
    facts = _facts(config, teacher, source)
    first_step = 0
    if resume:
        if (found := newest_checkpoint(checkpoints)) is None:
            raise QatError(f"nothing to resume: {checkpoints} holds no whole checkpoint; run without --resume")
        _check_facts(found, facts)
        first_step = found.step
        state.restore(found)
    elif newest_checkpoint(checkpoints) is not None:
        raise InputError(f"{checkpoints} holds a run already: go on with --resume, or choose another --out")

    else:
        state.choose(held_out, 0)

    parallel = ranks.wrapped(student)
    log = RunLog(out, outputs, steps=config.steps, first_step=first_step, console=console) if ranks.first else None
    with _stop_if_disk_full(checkpoints), log or nullcontext():
        for step in range(first_step, config.steps):
            step_started = time.monotonic()
            progress = step / config.steps
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                frozen = group["is_scale"] and progress >= config.freeze_ranges_after
                group["lr"] = 0.0 if frozen else rate * rate_factor(progress, config)

            batch = source.batch(step, rank=ranks.rank, ranks=ranks.count)
            features = batch.features.to(ranks.device)
            with torch.no_grad():
                wanted = output_tensors(teacher(features))
            loss, *noise = objective(output_tensors(parallel(features)), wanted, batch.labels)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
            value, norm_value, *noises = ranks.mean(torch.stack([loss, norm, *noise]).detach()).tolist()
            state.first_loss = value if step == 0 else state.first_loss
            _check_loss(value, norm_value, state.first_loss, config, step, checkpoints)
            optimizer.step()
            keep_scales_positive(student)
            state.update_average(min(config.ema_decay, (1 + step) / (10 + step)))

            done = step + 1
            if done % config.choose_every == 0 or done == config.steps:
                state.choose(held_out, done)
            if log:
                log.add(
                    {
                        "step": step,
                        "loss": value,
                        **{f"sqnr_{name}_db": decibel(one) for name, one in zip(outputs, noises, strict=True)},
                        "learning_rate": optimizer.param_groups[0]["lr"],
                        "gradient_norm": norm_value,
                        "samples_per_s": config.batch / (time.monotonic() - step_started),
                    }
                )
                if done % config.checkpoint_every == 0 and done < config.steps:
                    write_checkpoint(checkpoints, state.checkpoint(done, facts), keep=config.keep_checkpoints)

    if not ranks.agree(student):
        raise QatError("the ranks ended with different weights or ranges: do all run the same versions?")
    if post_training is None:
        return None
    student.load_state_dict(state.best)
    with _stop_if_disk_full(checkpoints):
        tuned = held_out.figures(student)
        _save(student.cpu(), out / "qat.safetensors", tuned)
        plot(out / "metrics.csv", out / "plot.png", outputs)
        summary = QatSummary(
            post_training=post_training,
            tuned=tuned,
            input_statistics=statistics,
            best_step=state.best_step,
            first_step=first_step,
            steps=config.steps,
            seconds=time.monotonic() - started,
            ranks=ranks.count,
            device=str(ranks.device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            config=config,
        )
        write_whole(out / "summary.json", (json.dumps(dataclasses.asdict(summary), indent=2) + "\n").encode())
    return summary


def rate_factor(progress: float, config: QatConfig) -> float:
    """What the learning rate is multiplied by, `progress` running from 0 to 1."""
    if progress < config.warmup:
        return progress / config.warmup
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / max(1 - config.warmup, 1e-9)))


def _save(student: Student, path: Path, tuned: Figures) -> None:
    if isinstance(student, QuantizedNetwork):
        save_network_checkpoint(student, path, sqnr_db=tuned.sqnr_db)
    else:
        save_checkpoint(student, path, sqnr_db=(tuned.sqnr_db["y1"], tuned.sqnr_db["y2"]))


def _optimizer(student: Student, config: QatConfig) -> torch.optim.Optimizer:
    """AdamW; a rate for each branch's weights, and for learned scales one in proportion to the scale."""
    groups: list[dict[str, Any]] = []
    weights = {name: p for name, p in student.named_parameters() if p.requires_grad}
    for eighth, factor in ((False, config.quarter_rate_factor), (True, config.eighth_rate_factor)):
        chosen = [p for name, p in weights.items() if _serves_eighth(name) == eighth]
        groups.append({"params": chosen, "lr": config.learning_rate * factor, "is_scale": False})
    if config.ranges == "learned":
        scales = learn_step_sizes(student)
        if isinstance(student, QuantizedNetwork):
            fixed = [student.quantizer(name).scale.requires_grad_(False) for name in student.pixels]
            scales = [scale for scale in scales if not any(scale is one for one in fixed)]
        for scale in scales:
            rate = config.step_size_rate * float(scale.detach())
            groups.append({"params": [scale], "lr": rate, "weight_decay": 0.0, "is_scale": True})
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def _serves_eighth(name: str) -> bool:
    return name.startswith(("transition.b2_down", "branches.1", "fuse_layers.1", "smooth.1"))


def _check_loss(loss: float, norm: float, first_loss: float, config: QatConfig, step: int, checkpoints: Path) -> None:
    advice = f"lower `learning_rate` (={config.learning_rate}); whole checkpoints, if any, are in {checkpoints}"
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise QatError(f"the loss (={loss}) or its gradient (norm {norm}) is not finite at step {step}: {advice}")
    if loss > config.diverged_at * first_loss:
        raise QatError(
            f"the loss (={loss:.4g}) at step {step} is more than `diverged_at` (={config.diverged_at:g}) times "
            f"that of the first step ({first_loss:.4g}): {advice}"
        )


def _facts(config: QatConfig, teacher: Stage2 | QuantizedNetwork, source: Source) -> dict[str, Any]:
    """What a run must have in common with the checkpoint that it goes on from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return {
        "config": dataclasses.asdict(config),
        "teacher_config": {
            "inputs": list(teacher.input_names),
            "pixels": sorted(teacher.pixels),
            "outputs": list(teacher.output_names),
        }
        if isinstance(teacher, QuantizedNetwork)
        else dataclasses.asdict(teacher.config)
        | {"num_channels": list(teacher.config.num_channels)}
        | {"num_blocks": list(teacher.config.num_blocks)},
        "teacher_sha256": digest.hexdigest(),
        "features": source.fingerprint,
    }


def _check_facts(found: Checkpoint, facts: dict[str, Any]) -> None:
    for name, wanted in facts.items():
        stored = found.facts[name]
        if stored == wanted:
            continue
        if isinstance(wanted, dict):
            name, stored, wanted = next(
                (f"{name}.{k}", stored.get(k), v) for k, v in wanted.items() if stored.get(k) != v
            )
        raise QatError(
            f"cannot resume: `{name}` was {stored!r} when the checkpoint of step {found.step} was written "
            f"and is now {wanted!r}; put it back, or start anew in another folder"
        )


@contextmanager
def _stop_if_disk_full(checkpoints: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise QatError(
            f"no room to write {error.filename or 'a file'} ({error.strerror}): free some space and run again "
            f"with --resume; the checkpoints in {checkpoints} are whole"
        ) from error
