"""Answers a page's report with the figures that the terminal shows, as text to be put into the page."""

from __future__ import annotations

from collections.abc import Sequence

from litehrnet_stage2.runtime.latency.result import Run
from litehrnet_stage2.runtime.parity import ParityResult
from litehrnet_stage2.runtime.web.protocol import Report


def answer(run: Run, results: Sequence[ParityResult], report: Report) -> dict[str, object]:
    """The values of `show` in the page's `main.js`."""
    timed = [c for c in run.candidates if c.latency]
    return {
        "passed": passed(run, results),
        "summary": _summary(run, results),
        "parity": [
            {"output": name, "compared": o.compared, "mismatches": o.mismatches, "largest": o.max_lsb}
            for result in results
            for name, o in result.outputs.items()
        ],
        "sha256": results[0].codes_sha256[:10] if results else "",
        "times": [
            {
                "model": c.name,
                "p50": f"{c.latency.p50_ms.value:.1f}",
                "interval": f"{c.latency.p50_ms.low:.1f}\u2013{c.latency.p50_ms.high:.1f}",
                "p90": f"{c.latency.p90_ms.value:.1f}",
            }
            for c in timed
            if c.latency
        ],
        "ratios": [
            f"{r.numerator.split(',')[0]} takes {r.ratio.value:.2f} ({r.ratio.low:.2f} to {r.ratio.high:.2f}) of "
            f"{r.denominator.split(',')[0]}."
            for r in run.ratios
        ],
        "valid": run.validity.valid,
        "verdict": _verdict(run),
        "reasons": list(run.validity.reasons),
        "clock": f"The browser's clock steps by {report.clock_step_ms:.3g} ms. Not shown by a browser: "
        + ", ".join(run.validity.unknown),
    }


def passed(run: Run, results: Sequence[ParityResult]) -> bool:
    """Whether codes came, and all of them were equal in each pass."""
    failed = any(c.exact and c.failure for c in run.candidates)
    return bool(results) and not failed and all(result.passed for result in results)


def _summary(run: Run, results: Sequence[ParityResult]) -> str:
    compared = sum(o.compared for result in results for o in result.outputs.values())
    differ = sum(o.mismatches for result in results for o in result.outputs.values())
    if not results:
        return "No codes were compared."
    if not differ and not passed(run, results):
        return "Codes differed after the timing."
    if not differ:
        return f"All {compared:,} codes are equal."
    return f"{differ:,} of {compared:,} codes differ."


def _verdict(run: Run) -> str:
    if run.validity.valid:
        return "These times can be trusted."
    if run.only_ratios_valid:
        return "Rely on the ratio, not on the milliseconds."
    return "Do not rely on these times."
