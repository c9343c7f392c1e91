"""The tables of a README or a comment: latencies, and ratios to the peers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from litehrnet_stage2.apps.reporting import cells
from litehrnet_stage2.apps.reporting.columns import Column, columns
from litehrnet_stage2.runtime.latency import CandidateResult, Result


def markdown(results: Sequence[Result]) -> str:
    """The Markdown of one or several results."""
    return "\n".join(line for column in columns(results) for line in _column(column))


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
        peers = dict.fromkeys(r.denominator for r in run.ratios)
        compared = "instructions" if run.machine.emulated else "latency"
        rows = ([peer, *(found.get((name, peer), "") for name in ours)] for peer in peers)
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


def _name(candidate: CandidateResult) -> str:
    return candidate.key if candidate.peer else f"**{candidate.key}**"


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
