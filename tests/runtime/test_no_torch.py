"""A device without torch: what it runs imports none, and what needs it says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[..., subprocess.CompletedProcess[str]]

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(%r)); sys.argv = ['stage2', *sys.argv[1:]]\n"
CONVERT_ONLY = ("torch", "executorch", "coremltools", "onnx", "safetensors", "skimage", "sklearn")
STAGE2 = "from litehrnet_stage2.apps.cli import main; main()"


def test_parity_on_onnxruntime_and_golden_needs_no_torch(small_bundle: Path, python: Python) -> None:
    code = WITHOUT % (CONVERT_ONLY,) + STAGE2
    done = python(code, "parity", small_bundle, "--runtime", "onnxruntime", "--runtime", "golden", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert [result["passed"] for result in json.loads(done.stdout)] == [True, True]


def test_inspect_needs_no_torch_and_no_runtime(small_bundle: Path, python: Python) -> None:
    done = python(WITHOUT % ((*CONVERT_ONLY, "onnxruntime"),) + STAGE2, "inspect", small_bundle)
    assert done.returncode == 0, done.stderr


def test_serve_needs_no_torch_and_no_runtime(small_bundle: Path, python: Python) -> None:
    code = (
        WITHOUT % ((*CONVERT_ONLY, "onnxruntime"),)
        + "from pathlib import Path\n"
        + "from litehrnet_stage2.apps.serve import prepare\n"
        + "chosen = dict(tls=None, against='', json=None, collect=None, progress=print)\n"
        + "server, room = prepare(Path(sys.argv[1]), ('127.0.0.1', 0), **chosen)\n"
        + "assert 'model/web' in server.files\n"
    )
    done = python(code, small_bundle)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("runtime", "missing", "what"),
    [
        ("executorch", "torch", "ExecuTorch cannot be imported"),
        ("executorch", "executorch", "ExecuTorch cannot be imported"),
        ("onnxruntime", "onnxruntime", "ONNX Runtime cannot be imported"),
    ],
)
def test_a_runtime_that_is_not_installed_says_what_to_install(
    runtime: str, missing: str, what: str, small_bundle: Path, python: Python
) -> None:
    done = python(WITHOUT % ((missing,),) + STAGE2, "parity", small_bundle, "--runtime", runtime)
    assert done.returncode == 2
    assert what in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_convert_without_torch_says_what_to_install(tmp_path: Path, python: Python) -> None:
    done = python(WITHOUT % (("torch",),) + STAGE2, "convert", "--out", tmp_path / "bundle")
    assert done.returncode == 2
    assert "pip install -e '.[" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
