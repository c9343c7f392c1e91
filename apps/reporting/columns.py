"""The runs of several results side by side, each with a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litehrnet_stage2.apps.reporting.cells import plain
from litehrnet_stage2.runtime.latency import CandidateResult, Result, Run


@dataclass(frozen=True)
class Column:
    """One run, what a report calls it, and the letter that stands for that in the heads of tables."""

    label: str
    letter: str
    result: Result
    run: Run

    def find(self, key: str) -> CandidateResult | None:
        """The candidate of that key."""
        return next((c for c in self.run.candidates if c.key == key), None)


def columns(results: Sequence[Result]) -> list[Column]:
    """Every run of every result, labelled so that no two are called the same."""
    found: list[Column] = []
    for result in results:
        for run in result.runs:
            when = result.created[:16].replace("T", " ")
            label = plain(f"{run.machine.device} ({run.processor}), {when}")
            taken = sum(column.label.startswith(label) for column in found)
            number = len(found)
            letter = chr(ord("A") + number) if number < 26 else str(number + 1)
            found.append(Column(f"{label}, no. {taken + 1}" if taken else label, letter, result, run))
    return found
