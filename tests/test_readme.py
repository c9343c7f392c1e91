"""What the README says is so: its tables are those of the committed results, its commands and links exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litehrnet_stage2.apps.reporting.markdown import markdown
from litehrnet_stage2.runtime.latency import read_result

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\$ (?:\.venv/bin/)?stage2 (.*?)(?:\s+#.*)?$", re.MULTILINE)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_latency_tables_are_those_of_the_committed_result() -> None:
    found = [read_result(ROOT / "benchmarks" / name) for name in ("x86-64.json", "x86-64-whole-network.json")]
    expected = markdown(found)
    assert (ROOT / "benchmarks" / "x86-64.md").read_text() == expected
    readme = (ROOT / "README.md").read_text()
    side_by_side = rows(expected.partition("\n\n")[0])
    assert len(side_by_side) > 12
    assert [row for row in side_by_side if row not in readme] == []
    ratios = {(r.numerator, r.denominator): r.ratio.value for r in found[0].runs[0].ratios}
    said = ratios["onnxruntime, 1 thread", "fp32 .onnx, 1 thread"]
    assert f"Our `.onnx` takes {said:.2f} of the time of the fp32 `.onnx` for Stage2" in readme


def test_the_instructions_are_those_of_the_committed_results() -> None:
    files = ("arm_instructions.json", "arm_instructions_whole_network.json")
    results = [read_result(ROOT / "benchmarks" / file) for file in files]
    readme = (ROOT / "README.md").read_text()
    shown = rows(markdown(results).partition("\n\n")[0])
    assert len(shown) > 10
    assert [row for row in shown if row not in readme] == []
    assert f"Made with `{results[0].command}`" in readme


def test_xnnpacks_operators_are_those_of_the_committed_count_and_nearly_all_of_the_program() -> None:
    counted = json.loads((ROOT / "benchmarks" / "arm_operators.json").read_text())
    kinds: dict[str, list[int]] = {}
    for operator in counted["operators"]:
        kind = kinds.setdefault(operator["operator"].split(",")[0].removesuffix("/2"), [0, 0])
        kind[0] += operator["count"]
        kind[1] += operator["count"] * operator["instructions"]
    page = (ROOT / "benchmarks" / "latency.md").read_text()
    for kind, (count, instructions) in kinds.items():
        assert f"| {kind} | {count} | {instructions / 1e6:.2f} |" in page
    assert f"| all | 43 | {counted['total'] / 1e6:.2f} |" in page

    (run,) = read_result(ROOT / "benchmarks" / "arm_instructions.json").runs
    whole = {c.name: c.instructions.per_inference for c in run.candidates if c.instructions}
    for name in ("executorch", "executorch-codes"):
        assert f"{whole[name] / 1e6:.2f} M" in page
    assert counted["total"] < whole["executorch-codes"] < 1.002 * counted["total"]
    conversions = sum(conversion["instructions"] for conversion in counted["conversions"])
    assert f"{conversions / 1e6:.2f} M" in page
    assert whole["executorch"] > counted["total"] + conversions > 52e6


def test_the_accuracy_table_is_that_of_the_committed_result() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [row for row in rows((ROOT / "benchmarks" / "qat.md").read_text()) if row not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", page.read_text())  # what is code is no link
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)\)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_command_shown_has_the_options_it_is_shown_with() -> None:
    shown = {tuple(match.split()) for page in PAGES for match in COMMAND.findall(page.read_text())}
    assert len(shown) > 10
    helps: dict[str, str] = {}
    for words in shown:
        name = words[0]
        if name not in helps:
            code = "from litehrnet_stage2.apps.cli import main; main()"
            asked = [*(words[:2] if name == "runner" else words[:1]), "--help"]
            done = subprocess.run(
                [sys.executable, "-c", code, *asked],
                capture_output=True,
                text=True,
                check=False,
                env={"COLUMNS": "200"},
            )
            assert done.returncode == 0, f"stage2 {name}: {done.stderr}"
            helps[name] = done.stdout
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in helps[name], f"stage2 {name} has no {word}"
