"""The tables of a README or a comment: latencies, and ratios to the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from litehrnet_stage2.apps.reporting import cells
from litehrnet_stage2.apps.reporting.columns import Column, columns
from litehrnet_stage2.runtime.latency import CandidateResult, Result, Run


def markdown(results: Sequence[Result]) -> str:
    """The Markdown of one or several results; several that were timed come side by side first."""
    found = columns(results)
    return "\n".join([*_side_by_side(found), *(line for column in found for line in _column(column))])


def _side_by_side(found: Sequence[Column]) -> Iterator[str]:
    """Median latencies of every timed run, and their quotients by that of the first float candidate."""
    timed = [column for column in found if any(c.latency for c in column.run.candidates)]
    if len(timed) < 2:
        return
    head, parts = ["artifact"], []
    for column in timed:
        p50 = {c.key: c.latency.p50_ms.value for c in column.run.candidates if c.latency}
        base = next((c.key for c in column.run.candidates if c.floating and c.latency), None)
        head += [f"{_function(column)}, p50 ms", f"of {base.partition(',')[0]}" if base else ""]
        parts.append((p50, p50.get(base or "")))
    names = {c.key: _name(c, column.run) for column in timed for c in column.run.candidates if c.latency}
    rows = []
    for key, name in names.items():
        row = [name]
        for p50, divisor in parts:
            value = p50.get(key)
            row += ["" if value is None else f"{value:.2f}", f"{value / divisor:.2f}" if value and divisor else ""]
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
