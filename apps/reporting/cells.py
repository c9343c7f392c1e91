"""The text of single values, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

import unicodedata

from litehrnet_stage2.runtime.latency import CandidateResult, Run
from litehrnet_stage2.runtime.latency.result import Interval, Ratio

UNKNOWN = "unknown"
SQNR = "SQNR dB"
"""Head of a column of `sqnr`."""


def name(candidate: CandidateResult, run: Run) -> str:
    """A candidate's name, with its threads where others have more."""
    several = len({c.threads for c in run.candidates}) > 1
    return candidate.key if several else candidate.name


def interval(value: Interval) -> str:
    """Its ends."""
    return f"{value.low:.2f} to {value.high:.2f}"


def ratio(ratio: Ratio, run: Run, strong: str = "{}") -> str:
    """The ratio with its interval and, in brackets, that of CPU time; what was counted has neither."""
    value = strong.format(f"{ratio.ratio.value:.2f}")
    if run.machine.emulated:
        return value
    cpu = "" if ratio.cpu_time is None else f" [{ratio.cpu_time:.2f}]"
    return f"{value} ({interval(ratio.ratio)}){cpu}"


def codes_off(candidate: CandidateResult) -> str:
    """How many codes are not the golden ones, where they have to be."""
    if not candidate.exact:
        return "another function"
    if not candidate.parity:
        return UNKNOWN
    return f"{sum(output.mismatches for output in candidate.parity.values()):,}"


def sqnr(candidate: CandidateResult) -> str:
    """Signal to noise against the float network, an output after the other; a float candidate is called that."""
    if candidate.floating:
        return "float"
    if candidate.sqnr_db is None:
        return UNKNOWN
    return ", ".join(f"{db:.1f}" for db in candidate.sqnr_db.values())


def instructions(candidate: CandidateResult) -> str:
    """Millions, or nothing."""
    return f"{candidate.instructions.per_inference / 1e6:.1f} M" if candidate.instructions else ""


def verdict(run: Run) -> str:
    """Whether to believe a run, in a sentence, with the reasons and what could not be judged."""
    validity = run.validity
    reasons = "; ".join(validity.reasons)
    if run.machine.emulated:
        return "Emulated: instructions are a cost that repeats; time means nothing there."
    if validity.valid:
        said = "Valid."
    elif run.only_ratios_valid:
        said = f"The ratios are valid, the milliseconds are not: {reasons}."
    else:
        said = f"Not valid: {reasons}."
    return f"{said} {unknown(run)}".rstrip()


def unknown(run: Run) -> str:
    """What this machine does not show, in a sentence; nothing if it shows all."""
    names = ", ".join(run.validity.unknown)
    return f"Not shown by this machine, so not judged: {names}." if names else ""


def plain(text: str) -> str:
    """Text of a file on one line, without characters that a terminal obeys or that turn the writing around."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)
