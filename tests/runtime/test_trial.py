"""An artifact from elsewhere is tried in a process of its own first; one that was made here is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.reference.contract.manifest import FILE_NAME, BundleError, FileEntry, seal
from litehrnet_stage2.reference.known_files import is_known
from litehrnet_stage2.runtime import Bundle, open_session, trial

CRASHES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
HANGS = "import time; time.sleep(600)"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The libraries in which something was tried."""
    libraries: list[str] = []
    run = trial.run_bounded

    def note(words: list[str], **options: object) -> object:
        libraries.append(json.loads(words[-1])["library"])
        return run(words, **options)

    monkeypatch.setattr(trial, "run_bounded", note)
    return libraries


def changed(bundle: Path, name: str, content: bytes) -> Path:
    """A bundle with another content of a file, all hashes made good."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / FILE_NAME).read_text())
    entry = FileEntry.of(content)
    manifest["files"][name] = {"sha256": entry.sha256, "size_bytes": entry.size_bytes}
    (bundle / FILE_NAME).write_text(json.dumps(manifest))
    seal(bundle)
    return bundle


def test_what_was_made_here_is_not_tried(small_bundle: Path, tried: list[str], tmp_path: Path) -> None:
    copy = shutil.copytree(small_bundle, tmp_path / "copy")
    for runtime in ("golden", "executorch", "onnxruntime", "coreml-eval"):
        open_session(copy, runtime)
    assert tried == []


@pytest.mark.parametrize("runtime", ["golden", "executorch", "onnxruntime", "coreml-eval"])
def test_what_came_from_elsewhere_is_tried_once(
    small_bundle: Path, tried: list[str], runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITEHRNET_STAGE2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("litehrnet_stage2.reference.known_files._REMEMBERED", set())
    golden = Bundle.open(small_bundle).golden()
    for _ in range(2):
        session = open_session(small_bundle, runtime)
        for found, due in zip(session.run_codes(golden.x[:1]), golden.outputs.values(), strict=True):
            assert np.array_equal(found, due[:1])
        monkeypatch.setattr("litehrnet_stage2.reference.known_files._REMEMBERED", set())
    assert tried == [runtime]


@pytest.mark.parametrize(
    ("program", "message"),
    [(CRASHES, "was ended by SIGSEGV when it tried it"), (HANGS, "did not open it and run it once within 1 s")],
)
def test_a_library_that_crashes_or_hangs_is_a_sentence(
    damaged: Path, program: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITEHRNET_STAGE2_CACHE", str(tmp_path / "cache"))  # in which no trial is known
    monkeypatch.setattr("litehrnet_stage2.reference.known_files._REMEMBERED", set())  # nor in this process
    content = (damaged / "stage2.onnx").read_bytes() + b"\x62\x00"  # an unknown field, which ONNX Runtime passes over
    changed(damaged, "stage2.onnx", content)
    monkeypatch.setattr(trial, "LONGEST_S", 1.0)
    monkeypatch.setattr(trial, "PYTHON", (*trial.PYTHON, "-c", program))
    with pytest.raises(BundleError, match=rf"stage2\.onnx cannot be opened: ONNX Runtime {message}"):
        open_session(damaged, "onnxruntime")


@pytest.mark.parametrize("name", ["stage2.pte", "stage2.onnx"])
def test_edited_artifacts_never_end_this_process(damaged: Path, name: str) -> None:
    runtime = {"stage2.pte": "executorch", "stage2.onnx": "onnxruntime"}[name]
    good = (damaged / name).read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(6):
        bad = bytearray(good)
        for place in rng.integers(8, len(bad), 200):
            bad[place] ^= 0xFF
        changed(damaged, name, bytes(bad))
        with pytest.raises(BundleError, match=f"{name} cannot be opened: (ExecuTorch|ONNX Runtime) "):
            open_session(damaged, runtime)
        refused += 1
    assert refused == 6
    assert not is_known(Bundle.open(damaged).sha256(name))
