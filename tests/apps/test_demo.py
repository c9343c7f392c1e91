"""`stage2 demo`: the main job to its end, on what ships."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from litehrnet_stage2.runtime import Bundle

DOCS = Path(__file__).parents[2] / "docs"


def test_it_ends_with_no_mismatch_on_any_runtime_both_bundles_paths_and_the_picture(
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
    whole = tmp_path / "bundle-landmarks"
    assert f"Bundle: {whole}" in done.stdout
    assert [(spec.name, spec.kind) for spec in Bundle.open(whole).manifest.inputs] == [("image", "pixels")]
    picture = tmp_path / "bundle-landmarks.png"
    (found,) = (line for line in done.stdout.splitlines() if line.startswith("The marker"))
    assert found.endswith(f"px from where it is: {picture}")
    assert float(found.split("network ")[1].split(" px")[0]) < 1
    with Image.open(picture) as drawn, Image.open(DOCS / "landmark-found.png") as shown:
        assert drawn.size == shown.size == (1024, 512)
