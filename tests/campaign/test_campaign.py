"""A sample of the campaign, `make campaign`: every hostile file is refused in one sentence, or harmless."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.commands import one_sentence


def test_a_sample_of_the_campaign_finds_nothing() -> None:
    words = [sys.executable, str(Path(__file__).parent), "--share", "0.02", "--seed", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (
            "running ...\nerror: x.pte is refused (forward failed, error: 0x30)\n",
            "x.pte is refused (forward failed, error: 0x30)",
        ),
        ("error: one\nerror: two\n", None),
        ("warning: no error: here\n", None),
        ("error: \x1b[2J\n", None),
        ("Traceback (most recent call last):\nerror: x\n", None),
    ],
)
def test_a_sentence_may_quote_an_error_and_is_the_only_one_and_does_nothing_to_a_terminal(
    printed: str, said: str | None
) -> None:
    assert one_sentence(printed) == said
