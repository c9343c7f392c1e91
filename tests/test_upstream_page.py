"""The gaps of ExecuTorch that docs/upstream.md shows are still there, and its patches close them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "upstream.md"


def test_executorch_still_needs_what_the_page_works_around(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["not_in_int8"] == names["names"], "ExecuTorch takes some of them in int8 now"
    printed = capsys.readouterr().out
    assert "quantisation is kept: False" in printed, "ExecuTorch's resize keeps its quantisation now"


def test_its_patches_make_executorchs_own_lowering_exact() -> None:
    operators, resize = (
        ROOT / "docs" / "upstream" / f"{name}.patch" for name in ("int8-operators", "quantised-resize")
    )
    assert set(made_with().values()) == {"computes in float"}
    assert made_with(operators).pop("resize") == "does not load"
    assert set(made_with(operators, resize).values()) == {"gives the golden codes"}


def made_with(*patches: Path) -> dict[str, str]:
    """What came out of each operator with these patches."""
    argv = [sys.executable, str(ROOT / "tests" / "patched_executorch.py"), *map(str, patches)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found
