"""A sample of `tests/kills.py`: SIGKILL at some moments of a conversion and of a fine-tuning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_kill_leaves_no_half_bundle_loses_none_and_the_next_run_leaves_nothing() -> None:
    """In a process of its own, which starts no threads before it forks."""
    script = Path(__file__).parents[1] / "kills.py"
    done = subprocess.run(
        [sys.executable, script, "--moments", "4"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith(("| convert", "| qat"))]
    assert [row[4].strip() for row in rows] == ["0", "0"]
    assert sum(int(row[2]) for row in rows) > 4  # most were killed before they ended
