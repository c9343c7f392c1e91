"""A sample of the campaign, `make campaign`: every hostile file is refused in one sentence, or harmless."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_sample_of_the_campaign_finds_nothing() -> None:
    words = [sys.executable, str(Path(__file__).parent), "--share", "0.02", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
