"""What docs/whole-network.md shows in Python runs, from the network to a tuned bundle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
