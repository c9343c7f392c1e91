"""`stage2 qat` on small data, by its real code path: it tunes, survives being killed, and stops when it must."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from litehrnet_stage2.apps.landmarks.pool import rendered
from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_stem_and_heads
from litehrnet_stage2.apps.qat.data import Batch, ShardSource
from litehrnet_stage2.apps.qat.features import FeatureShards
from litehrnet_stage2.apps.qat.fine_tune import QatError, QatSummary, fine_tune
from litehrnet_stage2.apps.qat.held_out import HeldOut, Objective, run_in_parts
from litehrnet_stage2.apps.qat.log import columns, read_rows
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.apps.qat.ranges import calibrate
from litehrnet_stage2.apps.qat.ranks import Ranks
from litehrnet_stage2.apps.qat.run_checkpoint import newest_checkpoint
from litehrnet_stage2.reference.checkpoint import load_checkpoint, read_card, save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.network_checkpoint import load_network_checkpoint
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL = {
    "steps": 12,
    "batch": 4,
    "crop_cells": 8,
    "held_out_maps": 4,
    "calibration_maps": 8,
    "checkpoint_every": 4,
    "threads": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped float Stage2 as teacher, and what its stem makes of photographs, in two shards."""
    folder = tmp_path_factory.mktemp("qat")
    pool = rendered("test", count=24, seed=5, folder=folder)
    stem, _ = load_stem_and_heads(SHIPPED / "landmarks.safetensors")
    with torch.no_grad():
        maps = stem(torch.from_numpy(pool.images[:, :, 100:164, 200:264].copy()).float() / 255)
    np.save(folder / "a.npy", maps[:14].half().numpy())
    np.save(folder / "b.npy", maps[14:].numpy())
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(SHIPPED / f"float{suffix}", folder / f"teacher{suffix}")
    return folder


def _run(data: Path, out: Path, *, resume: bool = False, console: Console | None = None, **knobs: object) -> QatSummary:
    config = QatConfig.from_mapping(SMALL | knobs)
    shards = FeatureShards([data / "a.npy", data / "b.npy"], channels=32)
    source = ShardSource(shards, config)
    console = console or Console(stderr=True, quiet=True)
    teacher = load_checkpoint(data / "teacher.safetensors")
    summary = fine_tune(teacher, source, config, out=out, resume=resume, ranks=ALONE, console=console)
    assert summary is not None
    return summary


def _command(data: Path, out: Path, *extra: str, **knobs: object) -> list[str]:
    sets = [part for name, value in (SMALL | knobs).items() for part in ("--set", f"{name}={value}")]
    return [
        *("-m", "litehrnet_stage2.apps.qat.command", "--features", str(data / "[ab].npy")),
        *("--teacher", str(data / "teacher.safetensors"), "--out", str(out), *sets, *extra),
    ]


@pytest.mark.parametrize("ranges", ["fixed", "learned"])
def test_tuning_improves_both_outputs_by_the_golden_evaluator(data: Path, tmp_path: Path, ranges: str) -> None:
    summary = _run(data, tmp_path, ranges=ranges, steps=40, learning_rate=1e-4, ema_decay=0.9)
    before, after = summary.post_training, summary.tuned
    assert sum(after.sqnr_db.values()) > sum(before.sqnr_db.values()) + 0.5
    assert summary.won

    student = load_checkpoint(tmp_path / "qat.safetensors")
    assert isinstance(student, QATStage2)
    assert _held_out(data).figures(student) == after


def _held_out(data: Path) -> HeldOut:
    """What `_run` judges by."""
    config = QatConfig.from_mapping(SMALL)
    source = ShardSource(FeatureShards([data / "a.npy", data / "b.npy"], channels=32), config)
    teacher = load_checkpoint(data / "teacher.safetensors")
    powers = [float(y.square().mean()) for y in run_in_parts(teacher, source.calibration())]
    return HeldOut(source, teacher, Objective(source, powers, config), ALONE.device)


def test_fixed_ranges_stay_where_calibration_put_them(data: Path, tmp_path: Path) -> None:
    summary = _run(data, tmp_path, steps=40, learning_rate=1e-4, ema_decay=0.9)
    assert summary.config.ranges == "fixed"
    assert summary.best_step > 0
    teacher = load_checkpoint(data / "teacher.safetensors")
    start = QATStage2.from_float(teacher)
    source = ShardSource(FeatureShards([data / "a.npy", data / "b.npy"], channels=32), QatConfig.from_mapping(SMALL))
    calibrate(start, source.calibration(), quantile=1.0, silu_floor=summary.config.silu_floor)
    tuned, before = load_file(tmp_path / "qat.safetensors"), start.state_dict()
    for name, value in tuned.items():
        if name.endswith(("scale", "zero_point", "low", "high")):
            assert torch.equal(value, before[name]), name
    assert any(not torch.equal(value, before[name]) for name, value in tuned.items() if name.endswith("weight"))


def test_weights_that_tuning_spoils_are_not_kept_and_the_run_says_that_it_did_not_win(
    data: Path, tmp_path: Path
) -> None:
    """At such a rate every look at the held-out maps is worse than the start, so the start is what is left."""
    knobs = {"learning_rate": 0.05, "warmup": 0.0, "ema_decay": 0.0, "clip_norm": 1e6, "diverged_at": 1e12}
    summary = _run(data, tmp_path, choose_every=1, silu_floor=-1e6, **knobs)
    assert summary.best_step == 0
    assert summary.tuned == summary.post_training
    assert not summary.won


def test_features_unlike_those_of_training_are_warned_of_with_their_numbers(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, 255 * np.load(data / name).astype(np.float32))
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(data / f"teacher{suffix}", tmp_path / f"teacher{suffix}")
    console = Console(stderr=True, width=1000)
    summary = _run(tmp_path, tmp_path / "out", console=console, steps=1, diverged_at=1e12)
    assert "warning: these inputs do not look like those that the network was trained on" in capsys.readouterr().err
    assert [s.module for s in summary.input_statistics] == ["transition.b1_keep.bn", "transition.b2_down.pointwise.bn"]
    assert all(s.std_ratio > 100 for s in summary.input_statistics)


def test_clipping_the_highest_activations_raises_the_signal_to_noise_ratio_and_shows_at_the_peaks(data: Path) -> None:
    """Why ranges stay where calibration put them."""
    teacher = load_checkpoint(data / "teacher.safetensors")
    source = ShardSource(FeatureShards([data / "a.npy", data / "b.npy"], channels=32), QatConfig.from_mapping(SMALL))
    student = QATStage2.from_float(teacher).calibrate(source.calibration())
    held_out = _held_out(data)
    whole = held_out.figures(student)
    quantizer = student.smooth[0].act.output
    quantizer.set_range(float(quantizer.low), 0.5 * float(quantizer.high))
    clipped = held_out.figures(student)
    assert clipped.sqnr_db["y1"] > whole.sqnr_db["y1"]
    assert clipped.peak_sqnr_db["y1"] < whole.peak_sqnr_db["y1"] - 1


def test_a_run_leaves_log_events_plot_and_summary(data: Path, tmp_path: Path) -> None:
    _run(data, tmp_path)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(12))
    assert set(rows[0]) == set(columns(("y1", "y2")))
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "tensorboard").iterdir())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["config"]["steps"] == 12
    assert summary["tuned"]["sqnr_db"]["y1"] > 10


def test_killed_at_any_moment_and_resumed_the_weights_are_bit_identical(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    knobs = {"steps": 24, "checkpoint_every": 3, "keep_checkpoints": 2}
    subprocess.run([sys.executable, *_command(data, whole, **knobs)], check=True, capture_output=True)

    process = subprocess.Popen([sys.executable, *_command(data, cut, **knobs)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((cut / "checkpoints").glob("step-0000000[6-9].json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (cut / "qat.safetensors").exists()

    resumed = [sys.executable, *_command(data, cut, "--resume", **knobs)]
    subprocess.run(resumed, check=True, capture_output=True)
    assert json.loads((cut / "summary.json").read_text())["first_step"] >= 6
    assert (cut / "qat.safetensors").read_bytes() == (whole / "qat.safetensors").read_bytes()
    kept = [{k: v for k, v in row.items() if k != "samples_per_s"} for row in read_rows(cut / "metrics.csv")]
    wanted = [{k: v for k, v in row.items() if k != "samples_per_s"} for row in read_rows(whole / "metrics.csv")]
    assert kept == wanted


@pytest.mark.parametrize("ranges", ["fixed", "learned"])
def test_two_ranks_end_where_one_does_at_the_same_global_batch(data: Path, tmp_path: Path, ranges: str) -> None:
    knobs = {"ranges": ranges, "steps": 4, "ema_decay": 0.0, "warmup": 0.0, "learning_rate": 1e-4}
    _run(data, tmp_path / "one", **knobs)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *_command(data, tmp_path / "two", **knobs)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / "qat.safetensors") for name in ("one", "two"))
    start = QATStage2.from_float(load_checkpoint(data / "teacher.safetensors")).state_dict()
    learned = [name for name in one if name.endswith(("weight", "bias"))]
    moved = torch.cat([(one[name] - start[name]).flatten() for name in learned]).norm()
    apart = torch.cat([(one[name] - two[name]).flatten() for name in learned]).norm()
    assert apart < 0.2 * moved
    for name in one:
        if name.endswith("scale"):
            assert two[name].item() == pytest.approx(one[name].item(), rel=0.01), name
    losses = [[row["loss"] for row in read_rows(tmp_path / n / "metrics.csv")] for n in ("one", "two")]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_a_batch_that_the_ranks_cannot_share_is_refused(data: Path, tmp_path: Path) -> None:
    config = QatConfig.from_mapping(SMALL | {"batch": 3})
    source = ShardSource(FeatureShards([data / "a.npy"], channels=32), config)
    two = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"`batch` \(=3\) must be a multiple of the number of ranks \(2\)"):
        fine_tune(Stage2(), source, config, out=tmp_path, resume=False, ranks=two, console=Console())


def test_a_diverging_loss_stops_the_run_and_leaves_the_last_checkpoint_whole(data: Path, tmp_path: Path) -> None:
    knobs = {"learning_rate": 1.0, "warmup": 0.0, "checkpoint_every": 1, "clip_norm": 1e6, "diverged_at": 2.0}
    with pytest.raises(QatError, match=r"diverged_at.*lower `learning_rate` \(=1.0\)"):
        _run(data, tmp_path, **knobs)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert all(torch.isfinite(t).all() for t in found.tensors.values() if t.is_floating_point())


def test_a_loss_that_is_not_a_number_stops_the_run_before_the_weights_take_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ShardSource.batch

    def poisoned(self: ShardSource, step: int, *, rank: int, ranks: int) -> object:
        batch = real(self, step, rank=rank, ranks=ranks)
        if step == 5:
            batch.features[0, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(ShardSource, "batch", poisoned)
    with pytest.raises(QatError, match="not finite at step 5"):
        _run(data, tmp_path)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 4
    monkeypatch.undo()
    assert _run(data, tmp_path, resume=True).first_step == 4


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ShardSource.batch
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling_up(self: ShardSource, step: int, *, rank: int, ranks: int) -> object:
        if step == 6:  # from here on no file can grow past what a log needs
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        return real(self, step, rank=rank, ranks=ranks)

    monkeypatch.setattr(ShardSource, "batch", filling_up)
    try:
        with pytest.raises(QatError, match=r"no room to write.*--resume"):
            _run(data, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert found.step == 4
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.undo()
    assert _run(data, tmp_path, resume=True).first_step == 4


def test_a_run_is_neither_overwritten_nor_resumed_from_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(QatError, match="nothing to resume"):
        _run(data, tmp_path, resume=True)
    _run(data, tmp_path)
    with pytest.raises(ValueError, match="holds a run already: go on with --resume"):
        _run(data, tmp_path)


def test_a_run_is_not_resumed_with_another_config_or_teacher(data: Path, tmp_path: Path) -> None:
    _run(data, tmp_path)
    with pytest.raises(QatError, match=r"`config.learning_rate` was 0.0005 .* is now 0.1"):
        _run(data, tmp_path, resume=True, learning_rate=0.1)
    other = data / "other"
    other.mkdir()
    for name in ("a.npy", "b.npy"):
        os.link(data / name, other / name)
    save_checkpoint(Stage2(), other / "teacher.safetensors")
    with pytest.raises(QatError, match="`teacher_sha256` was"):
        _run(other, tmp_path, resume=True)


def test_a_teacher_whose_config_does_not_fit_the_features_is_refused_by_the_command(data: Path, tmp_path: Path) -> None:
    save_checkpoint(Stage2(Stage2Config(in_channels=16)), tmp_path / "teacher.safetensors")
    command = _command(data, tmp_path / "out")
    command[command.index("--teacher") + 1] = str(tmp_path / "teacher.safetensors")
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must hold features of shape [N,16,H,W]" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_quantisation_aware_stage2_trains_inside_another_network_by_a_plain_loop() -> None:
    """The README's example: one's own network, one's own loop."""
    torch.manual_seed(0)
    images, labels = torch.rand(16, 3, 32, 64), torch.arange(16) % 2
    images[labels == 1] *= 0.5

    class Mine(nn.Module):
        def __init__(self, stage2: nn.Module) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 32, 4, stride=4), nn.SiLU())
            self.stage2 = stage2
            self.head = nn.Linear(32 + 64, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y1, y2 = self.stage2(self.stem(x))
            return self.head(torch.cat([y1.mean((2, 3)), y2.mean((2, 3))], dim=1))

    network = Mine(QATStage2.from_float(Stage2().eval()))
    with torch.no_grad():
        network.stage2.calibrate(network.stem(images))  # ranges first; from here on it fake-quantises
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("ranges", ["fixed", "learned"])
def test_a_network_with_dead_parts_and_an_output_that_is_constantly_zero_is_tuned(
    data: Path, tmp_path: Path, ranges: str
) -> None:
    dead = tmp_path / "dead"
    shutil.copytree(data, dead)
    teacher = load_checkpoint(dead / "teacher.safetensors")
    torch.nn.init.zeros_(teacher.branches[0][0].project.bn.weight)
    torch.nn.init.zeros_(teacher.branches[0][0].project.bn.bias)
    torch.nn.init.constant_(teacher.smooth[1].bn.bias, -200.0)
    save_checkpoint(teacher, dead / "teacher.safetensors")
    summary = _run(dead, tmp_path / "out", ranges=ranges, steps=4, learning_rate=1e-5)
    assert summary.tuned.sqnr_db["y1"] > 10
    assert read_card(tmp_path / "out/qat.safetensors").sqnr_db == tuple(summary.tuned.sqnr_db.values())


class _Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = nn.functional.silu(self.stem(image))
        return {"heat": self.head(features), "features": features}


class _Images:
    """A source of random images, without labels."""

    fingerprint = "random images"

    def batch(self, step: int, *, rank: int, ranks: int) -> Batch:
        return Batch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step)))

    def calibration(self) -> torch.Tensor:
        return self.batch(1000, rank=0, ranks=1).features

    def held_out(self) -> Batch:
        return self.batch(1001, rank=0, ranks=1)

    def task_loss(self, outputs: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def answer_loss(self, outputs: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("ranges", ["fixed", "learned"])
def test_a_whole_network_is_tuned_on_its_outputs_by_name_and_its_checkpoint_holds_what_was_judged(
    tmp_path: Path, ranges: str
) -> None:
    torch.manual_seed(0)
    network = quantize(_Whole(), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    config = QatConfig(steps=12, batch=4, choose_every=4, ranges=ranges, threads=1)  # type: ignore[arg-type]
    quiet = Console(stderr=True, quiet=True)
    summary = fine_tune(network, _Images(), config, out=tmp_path, resume=False, ranks=ALONE, console=quiet)
    assert summary is not None
    assert set(summary.tuned.sqnr_db) == {"heat", "features"}
    assert set(read_rows(tmp_path / "metrics.csv")[0]) == set(columns(("heat", "features")))
    fresh = quantize(_Whole(), torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    tuned = load_network_checkpoint(fresh, tmp_path / "qat.safetensors")
    assert float(tuned.quantizer("image").scale) == pytest.approx(1 / 255)  # pixels never move
    powers = [float(y.square().mean()) for y in run_in_parts(network, _Images().calibration())]
    held_out = HeldOut(_Images(), network, Objective(_Images(), powers, QatConfig()), ALONE.device)
    assert held_out.figures(tuned) == summary.tuned
