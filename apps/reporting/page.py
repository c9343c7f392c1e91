"""The page: one self-contained HTML file of one or several results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import median

from litehrnet_stage2.apps.reporting import charts
from litehrnet_stage2.apps.reporting.markup import Markup, join, table, tag
from litehrnet_stage2.runtime.latency import CandidateResult, Result, Run
from litehrnet_stage2.runtime.latency.result import Profile

METHOD = (
    "Every repetition is a fresh process that opens one artifact in one runtime, runs it until two windows' "
    "medians agree within 2%, then takes its samples. Candidates take turns, each other one in reverse, so that "
    "most of what slows a machine for a while slows all of them: a turn is a fifth of a second where the benchmark "
    "itself runs, a process on a device. Intervals are bootstrapped (95%) over processes and over the queries "
    "within. Outliers are counted and kept. An artifact's codes are compared with the golden ones before and after "
    "the timing: a wrong one gets no number."
)


FAMILIES = {
    "depthwise convolution": ("dwconv",),
    "convolution": ("conv", "fully connected", "gemm"),
    "activation": ("sigmoid", "table lookup", "silu", "swish"),
    "multiplication": ("mul",),
    "addition": ("add",),
    "resize": ("resize", "upsample"),
    "quantise, dequantise, lay out": ("quantizelinear", "convert", "transpose", "reorder"),
}
"""What runtimes' own names of operators have in common: the first whose word is in the name, in lower case."""

OTHER = "other"


@dataclass(frozen=True)
class Column:
    """One run, and what the page calls it."""

    label: str
    result: Result
    run: Run


def columns(results: Sequence[Result]) -> list[Column]:
    """Every run of every result, labelled so that no two are called the same."""
    found: list[Column] = []
    for result in results:
        for run in result.runs:
            cpu = ", ".join(kind.name for kind in run.machine.cores) or run.machine.arch
            label = f"{run.machine.device} ({cpu}), {result.created[:16].replace('T', ' ')}"
            taken = sum(column.label.startswith(label) for column in found)
            found.append(Column(f"{label}, no. {taken + 1}" if taken else label, result, run))
    return found


def page(results: Sequence[Result]) -> str:
    """The HTML of one or several results."""
    shown = columns(results)
    title = "Stage2: latency and parity"
    style = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<link rel="icon" href="data:,">'),
        tag("title", title),
        Markup(f"<style>{style}</style>"),
    )
    body = tag("body", tag("main", tag("h1", title), *_sections(shown)))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _sections(shown: Sequence[Column]) -> Iterator[Markup]:
    yield tag("div", *map(_card, shown), class_="cards")
    yield tag("h2", "Latency")
    yield tag("p", METHOD, class_="note")
    yield _latency(shown)
    if any(c.instructions for column in shown for c in column.run.candidates):
        yield tag("h2", "Instructions on emulated processors")
        yield tag("p", "A cost that repeats to 0.3%. It is not a latency: emulated time means nothing.", class_="note")
        yield _instructions(shown)
    for part in (_distribution, _ratios, _operators):
        yield from _each(shown, part)
    yield tag("h2", "Cold starts and memory")
    yield _cold(shown)
    yield tag("h2", "Parity with the golden codes")
    yield from (part for column in shown for part in _parity(column))
    yield tag("h2", "Coverage contract")
    yield tag("p", "Operators of each artifact by type, as counted and checked at conversion.", class_="note")
    yield _coverage(shown)
    yield tag("h2", "Environment")
    yield _environment(shown)


def _each(shown: Sequence[Column], part: object) -> Iterator[Markup]:
    assert callable(part)
    for column in shown:
        yield from part(column)


def _card(column: Column) -> Markup:
    validity = column.run.validity
    verdict = "Do not rely on these numbers."
    if validity.valid:
        verdict = "These numbers can be trusted."
    elif column.run.only_ratios_valid:
        verdict = "Rely on the ratios, in which candidates alternated, and not on the milliseconds."
    reasons = [tag("ul", *(tag("li", reason) for reason in validity.reasons))] if validity.reasons else []
    return tag(
        "section",
        tag("h3", column.label),
        tag("p", verdict, class_="verdict"),
        *reasons,
        tag("p", f"{column.result.command} (tier {column.result.tier})", class_="note"),
        class_="card valid" if validity.valid else "card",
    )


def _latency(shown: Sequence[Column]) -> Markup:
    head = ["artifact"]
    for column in shown:
        where = f" ({column.label})" if len(shown) > 1 else ""
        head += [f"p50 ms{where}", "95% interval", "p90 ms", "p99 ms", "variation", "outliers"]
    rows = []
    for key in _keys(shown):
        row = [key]
        for column in shown:
            candidate = _find(column, key)
            row += _latency_cells(candidate)
        rows.append(row)
    failures = {c.key: c.failure for column in shown for c in column.run.candidates if c.failure}
    said = (tag("p", tag("strong", key), f" has no number: {why}", class_="note") for key, why in failures.items())
    return join([table(head, rows), *said])


def _latency_cells(candidate: CandidateResult | None) -> list[str]:
    if candidate is None:
        return [""] * 6
    latency = candidate.latency
    if latency is None:
        return [tag("span", "none", class_="wrong") if candidate.failure else "", *[""] * 5]
    p50 = latency.p50_ms
    return [
        tag("strong", f"{p50.value:.2f}"),
        f"{p50.low:.2f} to {p50.high:.2f}",
        f"{latency.p90_ms.value:.2f}",
        f"{latency.p99_ms:.2f}",
        f"{latency.cv:.0%}",
        f"{latency.outliers} of {latency.queries:,}",
    ]


def _instructions(shown: Sequence[Column]) -> Markup:
    rows = []
    for key in _keys(shown):
        found = [_find(column, key) for column in shown]
        if any(c and c.instructions for c in found):
            rows.append(
                [key, *(f"{c.instructions.per_inference / 1e6:.1f} M" if c and c.instructions else "" for c in found)]
            )
    return table(["artifact", *(column.label for column in shown)], rows)


def _distribution(column: Column) -> Iterator[Markup]:
    samples = {
        c.key: [ms for process in c.latency.samples_ms for ms in process] for c in column.run.candidates if c.latency
    }
    if samples:
        colours = {key: charts.colour(i) for i, key in enumerate(samples)}
        yield tag("h3", f"Share of queries that were faster: {column.label}")
        yield tag("figure", charts.ecdf(samples, colours), _legend(colours))


def _ratios(column: Column) -> Iterator[Markup]:
    if column.run.ratios:
        rows = [
            (f"{r.numerator} / {r.denominator}", r.ratio.value, r.ratio.low, r.ratio.high) for r in column.run.ratios
        ]
        yield tag("h3", f"Against the peers: {column.label}")
        yield tag("p", f"All have the same weights: {column.result.weights}.", class_="note")
        if column.run.machine.emulated:
            yield tag("figure", charts.intervals(rows, "ratio of instructions, logarithmic; left of 1 is less"))
            yield table(["ratio of instructions", ""], [[label, f"{value:.2f}"] for label, value, _, _ in rows])
            return
        yield tag("figure", charts.intervals(rows, "ratio of latencies, logarithmic; left of 1 is faster"))
        cpu = ["" if r.cpu_time is None else f"{r.cpu_time:.2f}" for r in column.run.ratios]
        listed = [
            [label, f"{value:.2f}", f"{low:.2f} to {high:.2f}", share]
            for (label, value, low, high), share in zip(rows, cpu, strict=True)
        ]
        yield table(["ratio of latencies", "median over turns", "95% interval", "of CPU time"], listed)


def _operators(column: Column) -> Iterator[Markup]:
    profiled = [c for c in column.run.candidates if c.profile]
    if not profiled:
        return
    yield tag("h3", f"Time by kind of operator: {column.label}")
    bars = {c.key: by_family(c.profile) for c in profiled if c.profile and c.profile.operators}
    if bars:
        colours = {family: charts.colour(i) for i, family in enumerate([*FAMILIES, OTHER])}
        drawn = {family for pieces in bars.values() for family, _ in pieces}
        legend = {family: value for family, value in colours.items() if family in drawn}
        yield tag("figure", charts.shares(bars, colours), _legend(legend))
    for c in profiled:
        if c.profile and c.profile.operators:
            rows = [[o.kind, str(o.count), f"{o.mean_ms:.3f}", f"{o.share:.1%}"] for o in c.profile.operators]
            detail = table(["kind", "operators", "ms", "share"], rows, caption=f"Recorded by {c.profile.source}.")
            yield tag("details", tag("summary", c.key), detail)
        elif c.profile:
            yield tag("p", f"{c.key}: {c.profile.source}.", class_="note")


def by_family(profile: Profile) -> list[tuple[str, float]]:
    """Share of the time by family of operators, so that runtimes can be compared."""
    shares = dict.fromkeys([*FAMILIES, OTHER], 0.0)
    for operator in profile.operators:
        kind = operator.kind.lower()
        family = next((name for name, words in FAMILIES.items() if any(word in kind for word in words)), OTHER)
        shares[family] += operator.share
    return [(family, share) for family, share in shares.items() if share]


def _cold(shown: Sequence[Column]) -> Markup:
    head = ["artifact"]
    for column in shown:
        where = f" ({column.label})" if len(shown) > 1 else ""
        head += [f"load ms{where}", "first run ms", "resident peak MiB", "of it before loading", "file KiB"]
    rows = []
    for key in _keys(shown):
        row = [key]
        for column in shown:
            c = _find(column, key)
            row += [
                f"{median(c.cold.load_ms):.1f}" if c and c.cold else "",
                f"{median(c.cold.first_ms):.1f}" if c and c.cold else "",
                f"{c.memory.rss_peak_mib:.0f}" if c and c.memory else "",
                f"{c.memory.rss_before_load_mib:.0f}" if c and c.memory else "",
                f"{c.size_bytes / 1024:.0f}" if c else "",
            ]
        rows.append(row)
    return table(head, rows)


def _parity(column: Column) -> Iterator[Markup]:
    yield tag("h3", column.label)
    rows = []
    drawn: dict[str, Markup] = {}
    for c in column.run.candidates:
        for name, output in (c.parity_after or c.parity_before or {}).items():
            equal = not output.mismatches
            text = "0" if equal else f"{output.mismatches:,} ({output.mismatches / output.compared:.2%})"
            before = (c.parity_before or {}).get(name)
            rows.append(
                [
                    f"{c.key}, {name}",
                    "has to be equal" if c.exact else "peer: another function",
                    f"{output.compared:,}",
                    f"{before.mismatches:,}" if before else "",
                    tag("span", text, class_="equal" if equal else "wrong" if c.exact else ""),
                    str(output.max_lsb),
                    "equal" if output.sqnr_db is None else f"{output.sqnr_db:.1f} dB",
                ]
            )
            if not equal:
                drawn[f"{c.key}, {name}"] = charts.histogram(output.histogram)
    head = ["output", "contract", "codes", "differ before", "differ after", "largest step", "signal to noise"]
    yield table(head, rows)
    for label, chart in drawn.items():
        yield tag("details", tag("summary", f"Differences: {label}"), tag("figure", chart))


def _coverage(shown: Sequence[Column]) -> Markup:
    rows = {}
    for column in shown:
        for c in column.run.candidates:
            if c.coverage:
                groups = (c.coverage.int8, c.coverage.floating, c.coverage.boundary)
                listed = (", ".join(f"{n} {kind}" for kind, n in group.items()) or "none" for group in groups)
                rows[c.name] = [c.name, str(c.coverage.partitions), *listed]
    return table(["artifact", "delegates", "in int8", "in float", "at the border"], rows.values())


def _environment(shown: Sequence[Column]) -> Markup:
    facts: dict[str, list[str]] = {}
    for column in shown:
        m, e = column.run.machine, column.run.environment
        known = {
            "processor": ", ".join(f"{len(k.cores)} x {k.name}" for k in m.cores) or m.arch,
            "features": ", ".join(m.features),
            "big cores": ", ".join(map(str, m.big_cores)),
            "governor": m.governor,
            "frequency": f"{m.frequency_mhz:.0f} MHz" if m.frequency_mhz else None,
            "temperature": f"{m.temperature_c:.0f} °C" if m.temperature_c else None,
            "load before, after": f"{e.load_1min_before}, {e.load_1min_after}",
            "memory": f"{e.memory_mib:,} MiB" if e.memory_mib else None,
            "system": e.os,
            "kernel": m.kernel,
            "cores used": ", ".join(map(str, e.affinity)) or "any",
            "Python": e.python,
            "versions": ", ".join(f"{name} {version}" for name, version in e.versions.items()),
            "git revision": e.git_revision,
            "golden codes": column.result.golden_sha256[:16],
            "bounds of validity": ", ".join(f"{name} {bound:g}" for name, bound in column.run.validity.bounds.items()),
        }
        for name, value in known.items():
            facts.setdefault(name, []).append(value or "not shown by this machine")
    rows = []
    for name, values in facts.items():
        cells = "".join(tag("td", value, class_="wrap") for value in values)
        rows.append(tag("tr", tag("th", name, scope="row"), Markup(cells)))
    head = tag("tr", tag("th", ""), *(tag("th", column.label, scope="col") for column in shown))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll", tabindex="0")


def _legend(colours: dict[str, str]) -> Markup:
    items = (tag("li", tag("i", style=f"background:{value}"), name) for name, value in colours.items())
    return tag("figcaption", tag("ul", join(items), class_="legend"))


def _keys(shown: Sequence[Column]) -> list[str]:
    return list(dict.fromkeys(c.key for column in shown for c in column.run.candidates))


def _find(column: Column, key: str) -> CandidateResult | None:
    return next((c for c in column.run.candidates if c.key == key), None)
