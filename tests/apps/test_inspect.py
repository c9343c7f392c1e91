"""`stage2 inspect`: the coverage contract and the quantisation, for a person and for a program."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.apps import quality
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.fidelity import golden_sqnr_db
from litehrnet_stage2.runtime.parity import sqnr_db

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


def test_no_name_is_cut_at_80_columns(small_bundle: Path, small_function: IntegerFunction, python: Command) -> None:
    """A name that is too long for its column goes on in the next line of it."""
    code = "import sys; from litehrnet_stage2.apps.cli import main; sys.argv = ['stage2', *sys.argv[1:]]; main()"
    done = python(code, "inspect", small_bundle, COLUMNS="80", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.stdout
    assert max(len(line) for line in done.stdout.split("Input:")[0].splitlines()) <= 80
    table = done.stdout.split("Quantisation")[1]
    (head,) = (line for line in table.splitlines() if "made by" in line)
    names = "".join(line[: head.index("made by")].strip() for line in table.splitlines())
    assert all(name in names for name in small_function.quantization)


@pytest.mark.parametrize("command", [["inspect"], ["parity", "--runtime", "golden"]])
def test_the_signal_to_noise_of_each_output_against_the_float_network_is_shown(
    command: list[str], stage2: Command, small_bundle: Path
) -> None:
    opened = Bundle.open(small_bundle)
    due = golden_sqnr_db(opened.golden(), opened.manifest.outputs)
    assert list(due) == ["y1", "y2"]
    said = ", ".join(f"{name} {value:.1f} dB" for name, value in due.items())
    done = stage2(*command, small_bundle)
    assert f"int8 against the float network, signal to noise: {said}" in done.stdout
    assert "That is low" not in done.stdout


def test_a_low_signal_to_noise_comes_with_a_hint(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(quality.quality(small_bundle)) == 1
    monkeypatch.setattr(quality, "LOW_DB", 100.0)
    assert "That is low (below 100 dB): check that the calibration features" in quality.quality(small_bundle)[1]


def test_signal_to_noise_is_ten_times_the_logarithm_of_the_ratio_of_powers() -> None:
    signal = np.array([3.0, 4.0])
    assert sqnr_db(signal, np.array([0.3, 0.4])) == pytest.approx(20.0)
    assert sqnr_db(signal, np.zeros(2)) == math.inf
    assert sqnr_db(np.zeros(2), np.ones(2)) == -math.inf


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


def test_names_from_a_file_are_no_markup(stage2: Command, damaged: Path, forge: Callable[..., None]) -> None:
    """`[/]` would end a style that nobody began, and `[red]` would be gone."""

    def change(values: Any) -> None:
        values["coverage"]["onnx"]["int8"]["[red]x"] = 1
        values["versions"]["[/]"] = "[b]"

    forge(damaged, change)
    done = stage2("inspect", damaged)
    assert done.returncode == 0, done.stderr
    assert "1 [red]x" in done.stdout
    assert "[/] [b]" in done.stdout
