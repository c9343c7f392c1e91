"""The table of artifacts: its rows are true, and it is the one place that a new format has to be written into."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import litehrnet_stage2
from litehrnet_stage2.reference.contract import artifacts
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEVICE_RUNTIMES, LIBRARIES, RUNTIMES, Border
from litehrnet_stage2.runtime import program

ROOT = Path(__file__).parents[2]
ROOMS = ("reference", "converters", "runtime", "apps")

CONVERTER = '''"""The function itself, as a format."""

from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.reference import integer_function


def convert(function, path, deployment):
    """Write `path`."""
    integer_function.save(function, path)
    return Coverage(int8={"nodes": len(function.nodes)}, floating={}, boundary={}, partitions=1)
'''
ROW = """
        Artifact(
            name="itself",
            suffix=".itself",
            library="golden",
            border=Border("int8"),
            converter="itself",
            made_with=("numpy",),
            runtimes={"itself": "golden"},
        ),
"""


def test_a_format_is_one_file_and_one_row(small_checkpoint: list[str], tmp_path: Path) -> None:
    """In a copy of the package: then `convert`, `parity` and `inspect` know it, and the manifest says how it is fed."""
    package = tmp_path / "package" / "litehrnet_stage2"
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(inspect.getfile(litehrnet_stage2)), package)
    (package / "converters" / "itself.py").write_text(CONVERTER)
    table = package / "reference" / "contract" / "artifacts.py"
    head, end, tail = table.read_text().rpartition("\n    )\n}\n")
    table.write_text(head + ROW + end + tail)

    def stage2(*arguments: str | Path) -> str:
        command = [sys.executable, "-c", "from litehrnet_stage2.apps.cli import main; main()", *map(str, arguments)]
        env = {
            "PYTHONPATH": str(tmp_path / "package"),
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "COLUMNS": "300",
        }
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    bundle = tmp_path / "bundle"
    stage2("convert", *small_checkpoint, "--targets", "itself,onnx", "--out", bundle)
    entry = json.loads((bundle / "manifest.json").read_text())["artifacts"]["itself"]
    assert (entry["file"], entry["exact"]) == ("stage2.itself", True)
    assert entry["border"] == {"dtype": "int8", "offset": 0, "layout": "NCHW", "images": False}
    results = json.loads(stage2("parity", bundle, "--json", "-"))
    assert {one["session"]["runtime"]: one["passed"] for one in results} == {
        "golden": True,
        "itself": True,
        "onnxruntime": True,
    }
    assert "int8 codes in and out" in stage2("inspect", bundle)


def test_no_two_artifacts_have_one_file_and_no_two_runtimes_one_name() -> None:
    assert len({row.file("f") for row in ARTIFACTS.values()}) == len(ARTIFACTS)
    assert sum(len(row.runtimes) for row in ARTIFACTS.values()) + 1 == len(RUNTIMES)


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_row_names_a_converter_that_is_there_and_libraries_that_are_known(name: str) -> None:
    row = ARTIFACTS[name]
    assert importlib.util.find_spec(f"litehrnet_stage2.converters.{row.converter}")
    assert {row.library, *row.runtimes.values()} <= LIBRARIES.keys()


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_is_opened_with_the_same_arguments(name: str) -> None:
    """Without importing the library: its module may be asked for a sentence where it is missing."""
    module = importlib.import_module(LIBRARIES[name].program)
    assert list(inspect.signature(module.open_program).parameters) == ["content", "threads", "exact", "names"]
    assert set(inspect.signature(module.open_program).parameters) == set(
        inspect.signature(program.open_program).parameters
    ) - {"library"}
    assert not inspect.signature(module.library_version).parameters


def test_extras_of_the_table_are_those_of_the_distribution() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    used = {row.extra for row in ARTIFACTS.values()} | {library.extra for library in LIBRARIES.values()}
    assert used - {""} <= extras


def test_devices_run_what_their_libraries_open() -> None:
    assert all(LIBRARIES[runtime.library].on_devices and runtime.artifact for runtime in DEVICE_RUNTIMES.values())
    assert {"executorch", "onnxruntime", "executorch-codes", "onnxruntime-codes"} <= DEVICE_RUNTIMES.keys()


@pytest.mark.parametrize(("dtype", "offset"), [("int8", 128), ("uint8", 0), ("float32", 128)])
def test_a_border_with_an_offset_that_its_dtype_has_not_is_refused(dtype: artifacts.Dtype, offset: int) -> None:
    with pytest.raises(ValueError, match=rf"the offset of {dtype} is \d+, not {offset}"):
        Border(dtype, offset)


def test_a_border_of_images_and_codes_is_refused() -> None:
    with pytest.raises(ValueError, match="images cross beside floats alone, not beside uint8 codes"):
        Border("uint8", offset=128, images=True)
