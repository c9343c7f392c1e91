"""`import litehrnet_stage2`: light, complete, and found by tools that only look at files."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import litehrnet_stage2

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", litehrnet_stage2.__all__)
def test_every_name_of_the_front_door_opens(name: str) -> None:
    assert getattr(litehrnet_stage2, name).__class__ is not None


def test_python_converts_and_checks_without_a_console(small_checkpoint: list[str], tmp_path: Path) -> None:
    checkpoint, calibration = Path(small_checkpoint[1]), small_checkpoint[3]
    said: list[str] = []
    manifest = litehrnet_stage2.convert(
        tmp_path / "bundle", checkpoint=checkpoint, calibration=calibration, targets=["onnx"], progress=said.append
    )
    assert list(manifest.artifacts) == ["onnx"]
    assert "converting to onnx" in said
    results = litehrnet_stage2.check_bundle(tmp_path / "bundle")
    assert [result.passed for result in results] == [True, True]
    with pytest.raises(litehrnet_stage2.Stage2Error, match="is no bundle"):
        litehrnet_stage2.check_bundle(tmp_path)


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'stage3'"):
        litehrnet_stage2.stage3  # noqa: B018


@pytest.mark.parametrize(
    ("names", "absent"),
    [("__version__", "numpy"), ("Bundle, open_session, check_parity", "torch")],
    ids=["the version without numpy", "sessions and parity without torch"],
)
def test_the_front_door_imports_no_more_than_is_used(
    names: str, absent: str, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(
        f"import sys\nfrom litehrnet_stage2 import {names}\nassert {absent!r} not in sys.modules\n"
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_a_type_checker_finds_the_package_where_it_is_installed() -> None:
    """Type checkers run no import hook: they look for a folder with `py.typed` on the path."""
    spec = importlib.machinery.PathFinder.find_spec("litehrnet_stage2", [p for p in sys.path if p])
    assert spec is not None, "reinstall: pip install --no-deps -e ."
    assert spec.origin is not None, "reinstall: pip install --no-deps -e ."
    folder = Path(spec.origin).parent
    assert (folder / "py.typed").is_file()
    assert (folder / "runtime" / "session.py").is_file()
