"""ONNX Runtime reports to nobody from a process of this package, and reads nothing that no hash covers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.devices import python_runner
from litehrnet_stage2.runtime.onnx_file import OnnxFileError
from litehrnet_stage2.runtime.programs.onnxruntime_program import open_program
from tests.runtime.external_data import with_external_data


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_external_data_of_an_onnx_is_refused_wherever_it_is(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "secret.bin").write_bytes(np.float32(7).tobytes())
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(OnnxFileError, match="refers to data outside of its file"):
        open_program(with_external_data(location), threads=1, exact=True)


def homes_after(command: list[str | Path], home: Path, **environment: str) -> list[str]:
    """What a process has written into the person's home, but for this package's own cache."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    env = {**inherited, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **environment}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
    own = home / ".cache" / "litehrnet-stage2"
    found = (path for path in home.rglob("*") if path not in own.parents and not path.is_relative_to(own))
    return sorted(str(path.relative_to(home)) for path in found)


def test_no_process_that_runs_onnxruntime_writes_into_the_home(small_bundle: Path, tmp_path: Path) -> None:
    """It does where nobody tells it not to, which shows that this test would see it."""
    x = tmp_path / "x.npy"
    with np.load(small_bundle / "golden.npz") as golden:
        np.save(x, golden[golden.files[0]].astype(np.float32)[:1])
    model = small_bundle / "stage2.onnx"
    home = tmp_path / "home"
    home.mkdir()
    stage2 = Path(sys.executable).with_name("stage2")
    assert not homes_after([stage2, "parity", small_bundle, "--runtime", "onnxruntime"], home)
    code = (
        "import sys; from pathlib import Path; from litehrnet_stage2.runtime import Bundle, open_session; "
        "open_session(Bundle.open(Path(sys.argv[1])), 'onnxruntime')"
    )
    assert not homes_after([sys.executable, "-c", code, small_bundle], home)
    device = [sys.executable, Path(python_runner.__file__), "--library", "onnxruntime", "--model", model, "--input", x]
    assert not homes_after([*device, "--output", tmp_path / "y"], home)
    code = f"import onnxruntime; onnxruntime.InferenceSession({str(model)!r}, providers=['CPUExecutionProvider'])"
    assert homes_after([sys.executable, "-c", code], home)
