"""`stage2 inspect`: the coverage contract and the quantisation, for a person and for a program."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from litehrnet_stage2.reference.integer_function import IntegerFunction

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_it_shows_coverage_quantisation_and_proof(
    stage2: Command, small_bundle: Path, small_function: IntegerFunction
) -> None:
    done = stage2("inspect", small_bundle)
    assert done.returncode == 0, done.stderr
    for word in ("14 QLinearConv", "14 convolution", "14 conv", "1 Resize", "Coverage contract", "Quantisation"):
        assert word in done.stdout
    assert all(name in done.stdout for name in small_function.quantization)
    assert "4 additions over all 65,536 code pairs" in done.stdout
    assert "10 SiLU tables" in done.stdout


def test_json_is_the_manifest_and_nothing_else(stage2: Command, small_bundle: Path) -> None:
    done = stage2("inspect", small_bundle, "--json", "-")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads((small_bundle / "manifest.json").read_text())


def test_a_changed_function_is_exit_2(stage2: Command, damaged: Path) -> None:
    (damaged / "function.npz").write_bytes(b"")
    done = stage2("inspect", damaged)
    assert done.returncode == 2
    assert "function.npz is 0 bytes" in done.stderr


def test_a_damaged_artifact_is_not_shown_as_whole(damaged: Path, stage2) -> None:
    (damaged / "stage2.pte").write_bytes(b"cut short")
    done = stage2("inspect", damaged)
    assert done.returncode == 2
    assert "stage2.pte is 9 bytes, the manifest says" in done.stderr
