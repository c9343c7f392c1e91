"""What a wheel has: everything, and it works where nothing of the checkout can be seen."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.wheel import ROOT, build_wheel, install

ROOMS = ("reference", "converters", "runtime", "apps")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_every_file_of_the_rooms_is_in_the_wheel_and_nothing_of_the_tests(wheel: Path) -> None:
    listed = subprocess.run(["git", "ls-files", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True)
    due = {f"litehrnet_stage2/{name}" for name in listed.stdout.split() if not name.endswith("README.md")}
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    assert not due - found
    assert {name.split("/")[1] for name in found if name.startswith("litehrnet_stage2/")} == {
        *ROOMS,
        "__init__.py",
        "py.typed",
    }


def test_the_installed_wheel_converts_and_proves_parity_outside_of_the_checkout(
    wheel: Path, small_checkpoint: list[str], tmp_path: Path
) -> None:
    programs = install(wheel, tmp_path / "clean")
    outside = tmp_path / "outside"
    outside.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [programs / command[0], *command[1:]],
            cwd=outside,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("python", "-c", "import litehrnet_stage2.reference as r; print(next(iter(r.__path__)))")
    assert Path(where.strip()).is_relative_to(tmp_path / "clean")
    targets = "executorch,executorch-codes,onnx,onnx-codes,litert,coreml"
    run("stage2", "convert", *small_checkpoint, "--targets", targets, "--out", "bundle")
    assert "Parity with the golden codes" in run("stage2", "parity", "bundle")
    assert "int8.safetensors" in run("python", "-c", SHIPPED)


SHIPPED = """
from pathlib import Path
from litehrnet_stage2 import reference
from litehrnet_stage2.reference.checkpoint import load_checkpoint
path = Path(next(iter(reference.__path__))) / "weights" / "int8.safetensors"
print(load_checkpoint(path).__class__.__name__, path.name)
"""
