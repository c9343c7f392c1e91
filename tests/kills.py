"""SIGKILL at many moments of `convert` and of `qat`: never half a bundle, none lost, nothing left after the next run.

    python tests/kills.py --moments 100

Each run is a fork of this process, which has the libraries loaded already, of a small network. The moments are spread
over the time that a run takes here. Prints a table; the exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (so that no fork has to load it)
import numpy as np
import torch
import torch.utils.tensorboard
from rich.console import Console

from litehrnet_stage2.apps.convert import convert_to_bundle
from litehrnet_stage2.apps.qat.data import ShardSource
from litehrnet_stage2.apps.qat.features import FeatureShards
from litehrnet_stage2.apps.qat.fine_tune import fine_tune
from litehrnet_stage2.apps.qat.qat_config import QatConfig
from litehrnet_stage2.apps.qat.ranks import Ranks
from litehrnet_stage2.apps.qat.run_checkpoint import newest_checkpoint
from litehrnet_stage2.converters import to_coreml, to_onnx  # noqa: F401 (the same)
from litehrnet_stage2.reference.checkpoint import load_checkpoint, save_checkpoint
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime import Bundle

CONFIG = Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(1, 1))
KNOBS = QatConfig(
    steps=8,
    batch=2,
    crop_cells=8,
    held_out_maps=4,
    calibration_maps=8,
    checkpoint_every=2,
    keep_checkpoints=2,
    threads=1,
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the kills of one command came to."""

    command: str
    killed: int
    ended_before: int
    faults: tuple[str, ...]


def kill_convert(folder: Path, moments: int) -> Found:
    """Kill conversions, in turn where there is no bundle and where there is one."""
    _network(folder)
    out = folder / "there" / "bundle"

    def run() -> None:
        convert_to_bundle(
            out,
            checkpoint=folder / "float.safetensors",
            calibration=str(folder / "features.npy"),
            targets=["onnx", "coreml"],
        )

    def prepare(moment: int) -> None:
        if moment % 2 == 0:
            shutil.rmtree(out, ignore_errors=True)
        elif not out.exists():
            _finish(run)

    def check(moment: int) -> None:
        if out.exists():
            _whole(out)
        elif moment % 2:
            raise AssertionError("the bundle that was there is gone")

    def check_after() -> None:
        _whole(out)
        if left := sorted(path.name for path in out.parent.iterdir() if path != out):
            raise AssertionError(f"the next run left {left}")

    return _kill("convert", run, moments, prepare, check, check_after)


def kill_qat(folder: Path, moments: int) -> Found:
    """Kill fine-tuning, and go on with it the next time."""
    _network(folder)
    out = folder / "run"

    def run() -> None:
        source = ShardSource(FeatureShards([folder / "features.npy"], channels=CONFIG.in_channels), KNOBS)
        teacher = load_checkpoint(folder / "float.safetensors")
        alone, quiet = Ranks(0, 1, torch.device("cpu")), Console(quiet=True)
        resume = newest_checkpoint(out / "checkpoints") is not None
        fine_tune(teacher, source, KNOBS, out=out, resume=resume, ranks=alone, console=quiet)

    def prepare(moment: int) -> None:
        shutil.rmtree(out, ignore_errors=True)

    def check(moment: int) -> None:
        newest_checkpoint(out / "checkpoints")
        if (out / "qat.safetensors").exists() and (out / "qat.json").exists():
            load_checkpoint(out / "qat.safetensors")

    def check_after() -> None:
        load_checkpoint(out / "qat.safetensors")
        if left := sorted(str(path.relative_to(out)) for path in out.rglob(".*")):
            raise AssertionError(f"the next run left {left}")

    return _kill("qat", run, moments, prepare, check, check_after)


def _kill(
    command: str,
    run: Callable[[], None],
    moments: int,
    prepare: Callable[[int], None],
    check: Callable[[int], None],
    check_after: Callable[[], None],
) -> Found:
    prepare(0)
    took_s = _finish(run)
    faults, killed = [], 0
    for moment in range(moments):
        prepare(moment)
        child = _fork(run)
        time.sleep(took_s * (moment + 0.5) / moments)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        try:
            check(moment)
            if moment % 4 == 0:  # a run to the end after each would take as long again
                _finish(run)
                check_after()
        except Exception as error:
            faults.append(f"moment {moment} of {moments}: {type(error).__name__}: {error}")
    _finish(run)
    check_after()
    return Found(command=command, killed=killed, ended_before=moments - killed, faults=tuple(faults))


def _fork(run: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ["TQDM_DISABLE"] = "1"
    status = 1
    try:
        run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _finish(run: Callable[[], None]) -> float:
    """Run to the end; the seconds it took."""
    started = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(_fork(run), 0)[1])
    if status:
        raise AssertionError(f"a run that was not killed ended with {status}")
    return time.monotonic() - started


def _whole(out: Path) -> None:
    bundle = Bundle.open(out)
    for file in bundle.manifest.files:
        bundle.read(file)


def _network(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # a fork has none of the threads of its parent
    save_checkpoint(Stage2(CONFIG).eval(), folder / "float.safetensors")
    np.save(folder / "features.npy", np.random.default_rng(0).standard_normal((24, 4, 16, 24)).astype(np.float32))


def main() -> int:
    """Kill both commands and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100, help="of each command")
    moments = parser.parse_args().moments
    all_found = []
    for kill in (kill_convert, kill_qat):
        with tempfile.TemporaryDirectory() as folder:
            all_found.append(kill(Path(folder), moments))
    print("| command | killed | had ended before | faults |\n|---|---:|---:|---:|")
    for found in all_found:
        print(f"| {found.command} | {found.killed} | {found.ended_before} | {len(found.faults)} |")
    for found in all_found:
        print(*found.faults, sep="\n")
    return 1 if any(found.faults for found in all_found) else 0


if __name__ == "__main__":
    sys.exit(main())
