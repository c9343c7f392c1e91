"""What docs/integer-function.md shows is so: its examples run, and it names every operator."""

from __future__ import annotations

import doctest
from pathlib import Path

from litehrnet_stage2.reference.operators import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "integer-function.md"


def test_the_examples_of_the_page_give_what_it_shows() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("```python\n", "").replace("```\n", "\n")
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert result.attempted > 20
    assert not result.failed, "".join(report)


def test_the_page_has_a_heading_for_every_operator() -> None:
    headings = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    named = {name.strip().lower() for line in headings for name in line[3:].split(",")}
    assert set(KINDS) <= named
