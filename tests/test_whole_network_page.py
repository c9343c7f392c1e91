"""What docs/whole-network.md shows runs: its Python from the network to a tuned bundle, and its commands."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from litehrnet_stage2.runtime import Bundle

PAGE = Path(__file__).parents[1] / "docs" / "whole-network.md"


def test_the_python_of_the_page_makes_two_bundles_that_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(PAGE), "exec"), {})  # it ends in assertions of its own
    for name in ("bundle", "tuned"):
        manifest = Bundle.open(tmp_path / name).manifest
        assert manifest.inputs[0].kind == "pixels"
        assert [output.name for output in manifest.outputs] == ["heat"]


def test_the_commands_of_the_page_make_a_bundle_that_passes(
    stage2: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, console = (
        re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)[0] for kind in ("python", "console")
    )
    monkeypatch.chdir(tmp_path)
    model = python[: python.index("network = Net()")] + "\n\ndef make():\n    return Net()\n"
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "model.py").write_text(model)
    made: dict[str, Callable[[], object]] = {}
    exec(compile(model, "model.py", "exec"), made)
    save_file(made["make"]().state_dict(), tmp_path / "w.safetensors")  # type: ignore[attr-defined]
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, (2, 3, 256, 512)).astype(np.uint8))
    commands = [shlex.split(line)[2:] for line in console.splitlines()]
    assert [command[0] for command in commands] == ["convert", "parity"]
    for command in commands:
        done = stage2(*command)
        assert done.returncode == 0, done.stdout + done.stderr
