"""Hostile files through the command line as a person has it: exit status 2, one sentence, no traceback, in time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.contract.manifest import FILE_NAME, seal
from litehrnet_stage2.reference.errors import Stage2Error
from tests.campaign.bundles import replace
from tests.campaign.calibration import lying_header
from tests.campaign.damage import TEXTS, accident, many_flips
from tests.campaign.judge import Case

STAGE2 = Path(sys.executable).with_name("stage2")


def all_of_them(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """Every command that reads a file of others, with one of each kind of damage."""
    rng = np.random.default_rng(seed)
    bundle, checkpoint = scratch / "bundle", scratch / "float.safetensors"
    features, result = scratch / "features.npy", scratch / "result.json"
    convert = ["convert", "--checkpoint", checkpoint, "--calibration", features, "--targets", "onnx"]
    out = ["--out", scratch / "out"]
    while True:
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.copytree(folder / "bundle", bundle)
        for file in ("float.safetensors", "float.json", "features.npy", "result.json"):
            (scratch / file).unlink(missing_ok=True)
            shutil.copy(folder / file, scratch / file)
        kind = rng.integers(9)
        if kind == 0:
            file = (bundle / FILE_NAME, bundle / "golden.npz", bundle / "stage2.onnx")[rng.integers(3)]
            file.write_bytes(accident(file.read_bytes(), rng)[1])
            words = ["parity", bundle, "--runtime", ("golden", "onnxruntime")[rng.integers(2)]]
            what, due = f"parity after an accident in {file.name}", True
            if file.name == "stage2.onnx":
                words[-1] = "onnxruntime"
        elif kind == 1:
            (bundle / FILE_NAME).write_bytes(TEXTS[rng.integers(len(TEXTS))])
            seal(bundle)
            words, what, due = [("inspect", "parity", "bench")[rng.integers(3)], bundle], "another manifest", True
        elif kind == 2:
            name = ("stage2.pte", "stage2.onnx")[rng.integers(2)]
            replace(bundle, name, many_flips((bundle / name).read_bytes(), rng))
            runtime = {"stage2.pte": "executorch", "stage2.onnx": "onnxruntime"}[name]
            words, what, due = ["parity", bundle, "--runtime", runtime], f"an edited {name}", False
        elif kind == 3:
            result.write_bytes(many_flips(result.read_bytes(), rng))
            words, what, due = ["report", result], "an edited result", False
        elif kind == 4:
            result.write_bytes(TEXTS[rng.integers(len(TEXTS))])
            words, what, due = ["report", result, "--html", scratch / "x.html"], "another result", True
        elif kind == 5:
            features.write_bytes(lying_header(rng)[1] + features.read_bytes()[128:])
            words, what, due = [*convert, *out], "features with another header", False
        elif kind == 6:
            features.unlink()
            os.mkfifo(features)
            words, what, due = [*convert, *out], "features that are a pipe", True
        elif kind == 7:
            half = (checkpoint, checkpoint.with_suffix(".json"))[rng.integers(2)]
            half.write_bytes(TEXTS[rng.integers(len(TEXTS))])
            words, what, due = [*convert, *out], f"another {half.name}", True
        else:
            with (bundle / "golden.npz").open("r+b") as file:
                file.truncate(2**36)
            words, what, due = ["parity", bundle, "--runtime", "golden"], "a huge sparse file in a bundle", True
        yield Case(what, lambda words=words, due=due: _run(words, due))


def one_sentence(printed: str) -> str | None:
    """What a command said was wrong, if that was all, and did nothing to a terminal; it may quote an "error:"."""
    _, *said = re.split(r"^error: ", printed, flags=re.MULTILINE)
    tidy = all(letter.isprintable() or letter in "\n\t" for letter in printed)
    return said[0].strip() if len(said) == 1 and tidy and "Traceback" not in printed else None


def _run(words: list[object], due: bool) -> None:
    done = subprocess.run(
        [STAGE2, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "COLUMNS": "2000", "NO_COLOR": "1"},
        timeout=300,
        check=False,
    )
    if done.returncode == 2 and (said := one_sentence(done.stderr)) is not None:
        raise Stage2Error(said)
    wrong = done.returncode == 1 and words[0] == "parity" and "Traceback" not in done.stderr  # codes differ, it says
    if due or not (done.returncode == 0 or wrong):
        raise AssertionError(f"status {done.returncode}: {done.stderr[-1500:]}")
