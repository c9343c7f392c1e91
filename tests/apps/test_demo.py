"""`stage2 demo`: the main job to its end, on what ships."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from litehrnet_stage2.runtime import Bundle


def test_it_ends_with_no_mismatch_on_any_runtime_and_the_bundles_path(
    stage2: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = stage2("demo", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    for runtime in ("golden", "executorch", "litert", "onnxruntime"):
        rows = [line.split() for line in done.stdout.splitlines() if line.startswith(f" {runtime}")]
        assert len(rows) == 2, "one of Stage2 and one of the whole network"
        assert all(row[4:6] == ["0", "0"] for row in rows)
    assert f"Bundle: {tmp_path / 'bundle'}" in done.stdout
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.inputs[0].shape == (1, 32, 64, 128)
    assert set(manifest.artifacts) == {"executorch", "litert", "onnx", "coreml"}
