"""The tables of a README or a comment: latencies, and ratios to the baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from litehrnet_stage2.apps.reporting import cells
from litehrnet_stage2.apps.reporting.columns import Column, columns
from litehrnet_stage2.runtime.latency import CandidateResult, Result, Run


def markdown(results: Sequence[Result]) -> str:
    """The Markdown of one or several results; several that were timed, or counted, come side by side first."""
    found = columns(results)
    together = (line for measure in (_P50, _INSTRUCTIONS) for line in _side_by_side(found, measure))
    return "\n".join([*together, *(line for column in found for line in _column(column))])


@dataclass(frozen=True)
class _Measure:
    """What is laid side by side: its unit, its value of a candidate that has one, and digits behind the point."""

    unit: str
    value: Callable[[CandidateResult], float | None]
    digits: int


_P50 = _Measure("p50 ms", lambda c: c.latency.p50_ms.value if c.latency else None, 2)
_INSTRUCTIONS = _Measure("M instructions", lambda c: c.instructions.per_inference / 1e6 if c.instructions else None, 1)


def _side_by_side(found: Sequence[Column], measure: _Measure) -> Iterator[str]:
    """A measure of every run that has it, and its quotients by that of the first float candidate."""
    measured = [(column, {c.key: v for c in column.run.candidates if (v := measure.value(c))}) for column in found]
    measured = [(column, values) for column, values in measured if values]
    if len(measured) < 2:
        return
    head, parts = ["artifact"], []
    names: dict[str, str] = {}
    for column, values in measured:
        candidates = [c for c in column.run.candidates if c.key in values]
        base = next((c.key for c in candidates if c.floating), None)
        head += [f"{_function(column)}, {measure.unit}", f"of {base.partition(',')[0]}" if base else ""]
        parts.append((values, values.get(base or "")))
        names |= {c.key: _name(c, column.run) for c in candidates}
    rows = []
    for key, name in names.items():
        row = [name]
        for by_key, divisor in parts:
            value = by_key.get(key)
            row += [
                "" if value is None else f"{value:.{measure.digits}f}",
                f"{value / divisor:.2f}" if value and divisor else "",
            ]
        rows.append(row)
    yield from _table(head, rows)


def _function(column: Column) -> str:
    """What the artifacts of a run are called after."""
    return next((Path(c.artifact).stem.removesuffix("-codes") for c in column.run.candidates if not c.baseline), "")


def _column(column: Column) -> Iterator[str]:
    run = column.run
    yield f"### {_text(column.label)}"
    yield ""
    if any(c.latency for c in run.candidates):
        outputs = ", ".join(next((c.sqnr_db for c in run.candidates if c.sqnr_db), {}))
        head = ["artifact", "p50 ms", "95% interval", "p90 ms", "codes off", f"{cells.SQNR} {outputs}".rstrip()]
        yield from _table(head, map(_latency, run.candidates))
    if any(c.instructions for c in run.candidates):
        counted = ([_name(c), cells.instructions(c)] for c in run.candidates if c.instructions)
        yield from _table(["artifact", "instructions per inference"], counted)
    if run.ratios:
        ours = list(dict.fromkeys(r.numerator for r in run.ratios))
        found = {(r.numerator, r.denominator): cells.ratio(r, run, "**{}**") for r in run.ratios}
        baselines = dict.fromkeys(r.denominator for r in run.ratios)
        compared = "instructions" if run.machine.emulated else "latency"
        rows = ([baseline, *(found.get((name, baseline), "") for name in ours)] for baseline in baselines)
        yield from _table([f"{compared} against", *ours], rows)
        if run.machine.emulated:
            yield f"Of instructions, on {_text(run.processor)}."
        else:
            yield (
                f"On {_text(run.processor)}: median over pairs of turns, its 95% interval, "
                "and in brackets the same of CPU time."
            )
    yield _text(cells.verdict(run))
    yield f"Made with `{_text(column.result.command).replace('`', '')}`."
    yield ""


def _latency(candidate: CandidateResult) -> list[str]:
    latency = candidate.latency
    if latency is None:
        return [_name(candidate), candidate.failure or "not timed", "", "", "", ""]
    return [
        _name(candidate),
        f"{latency.p50_ms.value:.2f}",
        cells.interval(latency.p50_ms),
        f"{latency.p90_ms.value:.2f}",
        cells.codes_off(candidate) if candidate.exact else "",
        cells.sqnr(candidate),
    ]


def _name(candidate: CandidateResult, run: Run | None = None) -> str:
    name = cells.name(candidate, run) if run else candidate.key
    return name if candidate.baseline else f"**{name}**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    yield _row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    yield from map(_row, rows)
    yield ""


def _row(row: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", r"\|") for cell in row) + " |"


def _text(text: str) -> str:
    """Text of a file on one line, that is no HTML."""
    return cells.plain(text).replace("&", "&amp;").replace("<", "&lt;")
