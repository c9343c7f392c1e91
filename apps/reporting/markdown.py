"""The tables of a README or a comment: latencies, and ratios to the peers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from litehrnet_stage2.apps.reporting.page import Column, columns
from litehrnet_stage2.runtime.latency import Result
from litehrnet_stage2.runtime.latency.result import Ratio, Run


def markdown(results: Sequence[Result]) -> str:
    """The Markdown of one or several results."""
    return "\n".join(line for column in columns(results) for line in _column(column))


def _column(column: Column) -> Iterator[str]:
    run = column.run
    yield f"### {column.label}"
    yield ""
    if any(c.latency for c in run.candidates):
        yield from _table(
            ["artifact", "p50 ms", "95% interval", "p90 ms", "codes that differ"], "lrrrr", _latencies(column)
        )
    if any(c.instructions for c in run.candidates):
        rows = [
            [f"**{c.key}**" if c.exact else c.key, f"{c.instructions.per_inference / 1e6:.1f} M"]
            for c in run.candidates
            if c.instructions
        ]
        yield from _table(["artifact", "instructions per inference"], "lr", rows)
    if run.ratios:
        ours = list(dict.fromkeys(r.numerator for r in run.ratios))
        found = {(r.numerator, r.denominator): r for r in run.ratios}
        rows = [
            [peer, *(_ratio(found.get((name, peer)), run) for name in ours)]
            for peer in dict.fromkeys(r.denominator for r in run.ratios)
        ]
        compared = "instructions" if run.machine.emulated else "latency"
        yield from _table([f"{compared} against", *ours], "l" + "r" * len(ours), rows)
        if not run.machine.emulated:
            yield "Median over pairs of turns, its 95% interval, and in brackets the same of CPU time."
    yield _verdict(run)
    yield f"Made with `{column.result.command}`."
    yield ""


def _verdict(run: Run) -> str:
    if run.validity.valid:
        return "Valid."
    reasons = "; ".join(run.validity.reasons)
    if run.only_ratios_valid:
        return f"The ratios are valid, the milliseconds are not: {reasons}."
    return f"Not valid: {reasons}."


def _latencies(column: Column) -> Iterator[list[str]]:
    for c in column.run.candidates:
        if c.latency is None:
            yield [c.key, c.failure or "not timed", "", "", ""]
            continue
        parity = (c.parity_after or c.parity_before or {}).values()
        wrong, compared = sum(o.mismatches for o in parity), sum(o.compared for o in parity)
        share = "0" if not wrong else f"{wrong / compared:.1%}"
        p50 = c.latency.p50_ms
        yield [
            f"**{c.key}**" if c.exact else c.key,
            f"{p50.value:.2f}",
            f"{p50.low:.2f} to {p50.high:.2f}",
            f"{c.latency.p90_ms.value:.2f}",
            share,
        ]


def _ratio(ratio: Ratio | None, run: Run) -> str:
    if ratio is None:
        return ""
    if run.machine.emulated:  # counted, not measured
        return f"**{ratio.ratio.value:.2f}**"
    cpu = "" if ratio.cpu_time is None else f" [{ratio.cpu_time:.2f}]"
    return f"**{ratio.ratio.value:.2f}** ({ratio.ratio.low:.2f} to {ratio.ratio.high:.2f}){cpu}"


def _table(head: Sequence[str], aligned: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join({"l": "---", "r": "---:"}[side] for side in aligned) + "|"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"
    yield ""
