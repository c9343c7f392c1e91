"""What `stage2 bench` prints of a run: tables that wrap in a narrow terminal, and the verdict."""

from __future__ import annotations

from collections import Counter
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from litehrnet_stage2.apps.reporting import cells
from litehrnet_stage2.runtime.latency import CandidateResult, Run


def show(run: Run, out: Console) -> None:
    """Print the tables, why some have no numbers, and the verdict."""
    cores = ", ".join(f"{len(kind.cores)} x {kind.name}" for kind in run.machine.cores)
    title = f"{run.machine.device}: {cores or run.machine.arch}"
    out.print(_instructions(run, title) if run.machine.emulated else _latencies(run, title))
    if run.ratios:
        out.print(_ratios(run))
    for candidate in run.candidates:
        if candidate.failure:
            out.print(_text(f"{candidate.key}: {candidate.failure}", style="red"))
        for line in _details(candidate):
            out.print(_text(f"{candidate.key}: {line}"))
    style = "green" if run.validity.valid else "yellow" if run.only_ratios_valid else "bold red"
    out.print(_text(cells.verdict(run), style="" if run.machine.emulated else style))


def _details(candidate: CandidateResult) -> list[str]:
    found = []
    if sustained := candidate.sustained:
        minutes = len(sustained.p50_ms) * sustained.window_s / 60
        ratio = f"{sustained.last_to_first:.3f}"
        found.append(f"after {minutes:.1f} min without a pause, {ratio} of the first window's latency")
    if candidate.planned:
        where = Counter(operation.preferred or cells.UNKNOWN for operation in candidate.planned)
        found.append("Core ML plans " + ", ".join(f"{count} on {unit}" for unit, count in where.most_common()))
    return found


def _instructions(run: Run, title: str) -> Table:
    table = _table(f"{title}, one thread", "artifact", "instructions", "codes off", cells.SQNR)
    for c in run.candidates:
        table.add_row(_name(c, run), cells.instructions(c) or _none(c), _codes(c), cells.sqnr(c))
    return table


def _latencies(run: Run, title: str) -> Table:
    table = _table(title, "artifact", "p50 ms", "95%", "p90 ms", "load ms", "first", "MiB", "codes off", cells.SQNR)
    for c in run.candidates:
        if c.latency is None or c.cold is None:
            table.add_row(_name(c, run), _none(c), "", "", "", "", "", _codes(c), cells.sqnr(c))
            continue
        peak = c.memory.rss_peak_mib if c.memory else None
        table.add_row(
            _name(c, run),
            f"{c.latency.p50_ms.value:.2f}",
            f"{c.latency.p50_ms.low:.2f}-{c.latency.p50_ms.high:.2f}",
            f"{c.latency.p90_ms.value:.2f}",
            f"{median(c.cold.load_ms):.1f}",
            f"{median(c.cold.first_ms):.1f}",
            "?" if peak is None else f"{peak:.0f}",
            _codes(c),
            cells.sqnr(c),
        )
    return table


def _ratios(run: Run) -> Table:
    """Ratios of our artifacts to the baselines, a column for each artifact."""
    names = {c.key: cells.name(c, run) for c in run.candidates}
    ours = list(dict.fromkeys(ratio.numerator for ratio in run.ratios))
    what = "Instructions over the baseline's" if run.machine.emulated else "Latency over the baseline's, 95% [CPU time]"
    table = _table(f"{what}, on {run.processor}", "against", *(names.get(key, key) for key in ours))
    found = {(ratio.numerator, ratio.denominator): ratio for ratio in run.ratios}
    for baseline in dict.fromkeys(ratio.denominator for ratio in run.ratios):
        row = (found.get((key, baseline)) for key in ours)
        table.add_row(
            _text(names.get(baseline, baseline)), *(cells.ratio(ratio, run) if ratio else "" for ratio in row)
        )
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=_text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for column in numbers:
        table.add_column(_text(column), justify="right", overflow="fold")
    return table


def _name(candidate: CandidateResult, run: Run) -> Text:
    return _text(cells.name(candidate, run), style="" if candidate.baseline else "bold")


def _none(candidate: CandidateResult) -> Text:
    return _text("none", style="red" if candidate.failure else "")


def _codes(candidate: CandidateResult) -> Text:
    if not candidate.exact:
        return _text("")
    wrong = any(output.mismatches for output in candidate.parity.values())
    return _text(cells.codes_off(candidate), style="bold red" if wrong else "")


def _text(text: str, style: str = "") -> Text:
    """Text that is no markup and moves no cursor."""
    return Text(cells.plain(text), style=style)
