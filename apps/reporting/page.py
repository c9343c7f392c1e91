"""The page: one self-contained HTML file of one or several results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from statistics import median

from litehrnet_stage2.apps.reporting import cells, charts
from litehrnet_stage2.apps.reporting.columns import Column, columns
from litehrnet_stage2.apps.reporting.markup import Markup, join, table, tag
from litehrnet_stage2.runtime.latency import CandidateResult, Result
from litehrnet_stage2.runtime.latency.result import Profile

METHOD = (
    "Every repetition is a fresh process that opens one artifact in one runtime, runs it until two windows' "
    "medians agree within 2%, then takes its samples. Candidates take turns, each other one in reverse, so that "
    "most of what slows a machine for a while slows all of them: a turn is a fifth of a second where the benchmark "
    "itself runs, a process on a device. Intervals are bootstrapped (95%) over processes and over the queries "
    "within. Outliers are counted and kept. An artifact's codes are compared with the golden ones before and after "
    "the timing: a wrong one gets no number."
)

METHOD_WEB = (
    "web: onnxruntime-web in a browser, with WebAssembly's speed, which says nothing about the native runtimes on the "
    "same device. A sample there is the mean of a turn of 0.3 s, because browsers make their clocks coarse; a page is "
    "one process."
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
    if any("web" in c.library for column in shown for c in column.run.candidates):
        yield tag("p", METHOD_WEB, class_="note")
    yield _latency(shown)
    if any(c.instructions for column in shown for c in column.run.candidates):
        yield tag("h2", "Instructions on emulated processors")
        yield tag("p", "A cost that repeats to 0.3%. It is not a latency: emulated time means nothing.", class_="note")
        yield _instructions(shown)
    for part in (_distribution, _ratios, _operators, _planned):
        for column in shown:
            yield from part(column)
    yield tag("h2", "Cold starts and memory")
    yield _cold(shown)
    yield tag("h2", "Parity with the golden codes")
    yield from (part for column in shown for part in _parity(column))
    yield tag("h2", "Coverage contract")
    yield tag("p", "Operators of each artifact by type, as counted and checked at conversion.", class_="note")
    yield _coverage(shown)
    yield tag("h2", "Environment")
    yield _environment(shown)


def _card(column: Column) -> Markup:
    validity = column.run.validity
    verdict = "Do not rely on these numbers."
    if validity.valid:
        verdict = "These numbers can be trusted."
    elif column.run.only_ratios_valid:
        verdict = "Rely on the ratios, in which candidates alternated, and not on the milliseconds."
    if column.run.machine.emulated:
        verdict = "Instructions are a cost that repeats; time means nothing there."
    reasons = [tag("ul", *(tag("li", reason) for reason in validity.reasons))] if validity.reasons else []
    return tag(
        "section",
        tag("h3", f"{column.letter}: {column.label}"),
        tag("p", verdict, class_="verdict"),
        *reasons,
        *([tag("p", cells.unknown(column.run), class_="note")] if validity.unknown else []),
        tag("p", f"{column.result.command} (tier {column.result.tier})", class_="note"),
        class_="card valid" if validity.valid else "card",
    )


def _latency(shown: Sequence[Column]) -> Markup:
    parts = ["p50 ms", "95% interval", "p90 ms", "p99 ms", "variation", "outliers", cells.SQNR]
    rows = [[key, *(cell for column in shown for cell in _latency_cells(column.find(key)))] for key in _keys(shown)]
    failures = {c.key: c.failure for column in shown for c in column.run.candidates if c.failure}
    said = (tag("p", tag("strong", key), f" has no number: {why}", class_="note") for key, why in failures.items())
    return join([table(["artifact", *_heads(shown, parts)], rows), *said])


def _heads(shown: Sequence[Column], parts: Sequence[str]) -> Iterator[str]:
    """The headings of each run's columns, with the run's letter where there are several."""
    for column in shown:
        yield from (f"{part}, {column.letter}" if len(shown) > 1 else part for part in parts)


def _latency_cells(candidate: CandidateResult | None) -> list[str]:
    if candidate is None:
        return [""] * 7
    latency = candidate.latency
    if latency is None:
        return [tag("span", "none", class_="wrong") if candidate.failure else "", *[""] * 5, cells.sqnr(candidate)]
    return [
        tag("strong", f"{latency.p50_ms.value:.2f}"),
        cells.interval(latency.p50_ms),
        f"{latency.p90_ms.value:.2f}",
        f"{latency.p99_ms:.2f}",
        f"{latency.cv:.0%}",
        f"{latency.outliers} of {latency.queries:,}",
        cells.sqnr(candidate),
    ]


def _instructions(shown: Sequence[Column]) -> Markup:
    counted = [column for column in shown if any(c.instructions for c in column.run.candidates)]
    rows = []
    for key in _keys(counted):
        found = (column.find(key) for column in counted)
        rows.append([key, *(cells.instructions(c) if c else "" for c in found)])
    heads = (
        f"{column.letter}: {column.run.processor}" if len(shown) > 1 else column.run.processor for column in counted
    )
    return table(["artifact", *heads], rows)


def _distribution(column: Column) -> Iterator[Markup]:
    samples = {
        c.key: [ms for process in c.latency.samples_ms for ms in process] for c in column.run.candidates if c.latency
    }
    if samples:
        colours = {key: charts.colour(i) for i, key in enumerate(samples)}
        yield tag("h3", f"Share of queries that were faster: {column.label}")
        yield tag("figure", charts.ecdf(samples, colours), _legend(colours))


def _ratios(column: Column) -> Iterator[Markup]:
    run = column.run
    if not run.ratios:
        return
    what = "instructions" if run.machine.emulated else "latencies"
    rows = [(f"{r.numerator} / {r.denominator}", r.ratio.value, r.ratio.low, r.ratio.high) for r in run.ratios]
    yield tag("h3", f"Against the baselines: {column.label}")
    yield tag("p", f"On {run.processor}. All have the same weights: {column.result.weights}.", class_="note")
    yield tag("figure", charts.intervals(rows, f"ratio of {what}, logarithmic; left of 1 is less"))
    head = [f"ratio of {what}", "" if run.machine.emulated else "median over turns (95%) [of CPU time]"]
    pairs = zip(rows, run.ratios, strict=True)
    yield table(head, ([label, cells.ratio(ratio, run)] for (label, *_), ratio in pairs))


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
            rows = [[o.kind, str(o.count), f"{o.ms:.3f}", f"{o.share:.1%}"] for o in c.profile.operators]
            caption = f"Recorded by {c.profile.source}; shares are of {c.profile.share_of}."
            yield tag(
                "details", tag("summary", c.key), table(["kind", "operators", "ms", "share"], rows, caption=caption)
            )
        elif c.profile:
            yield tag("p", f"{c.key}: {c.profile.source}.", class_="note")


def _planned(column: Column) -> Iterator[Markup]:
    planned = [c for c in column.run.candidates if c.planned]
    if planned:
        yield tag("h3", f"What Core ML plans, before it runs: {column.label}")
    for c in planned:
        rows = [[o.output, o.operator, o.preferred or cells.UNKNOWN, ", ".join(o.supported)] for o in c.planned or ()]
        yield tag("details", tag("summary", c.key), table(["output", "operator", "unit", "could run on"], rows))


def by_family(profile: Profile) -> list[tuple[str, float]]:
    """Share of the time by family of operators, so that runtimes can be compared."""
    shares = dict.fromkeys([*FAMILIES, OTHER], 0.0)
    for operator in profile.operators:
        kind = operator.kind.lower()
        family = next((name for name, words in FAMILIES.items() if any(word in kind for word in words)), OTHER)
        shares[family] += operator.share
    return [(family, share) for family, share in shares.items() if share]


def _cold(shown: Sequence[Column]) -> Markup:
    parts = ["load ms", "first run ms", "resident peak MiB", "of it before loading", "file KiB"]
    rows = [[key, *(cell for column in shown for cell in _cold_cells(column.find(key)))] for key in _keys(shown)]
    return table(["artifact", *_heads(shown, parts)], rows)


def _cold_cells(c: CandidateResult | None) -> list[str]:
    if c is None:
        return [""] * 5
    mib = (c.memory.rss_peak_mib, c.memory.rss_before_load_mib) if c.memory else (None, None)
    compiled = f", after {median(c.cold.compile_ms):.1f} of compiling" if c.cold and c.cold.compile_ms else ""
    return [
        f"{median(c.cold.load_ms):.1f}{compiled}" if c.cold else "",
        f"{median(c.cold.first_ms):.1f}" if c.cold else "",
        *(cells.UNKNOWN if value is None else f"{value:.0f}" for value in mib),
        f"{c.size_bytes / 1024:.0f}",
    ]


def _parity(column: Column) -> Iterator[Markup]:
    yield tag("h3", column.label)
    rows = []
    drawn: dict[str, Markup] = {}
    for c in column.run.candidates:
        for name, output in c.parity.items():
            equal = not output.mismatches
            text = "0" if equal else f"{output.mismatches:,} ({output.mismatches / output.compared:.2%})"
            before = (c.parity_before or {}).get(name)
            rows.append(
                [
                    f"{c.key}, {name}",
                    "has to be equal" if c.exact else "another function",
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
            "load before, after": ", ".join(f"{v:g}" for v in (e.load_1min_before, e.load_1min_after) if v is not None),
            "memory": f"{e.memory_mib:,} MiB" if e.memory_mib else None,
            "system": e.os,
            "kernel": m.kernel,
            "cores used": ", ".join(map(str, e.affinity)) or "any",
            "Python": e.python,
            "versions": ", ".join(f"{name} {version}" for name, version in e.versions.items()),
            "git revision": e.git_revision,
            "golden codes": column.result.golden_sha256[:16],
            "not shown, not judged": ", ".join(column.run.validity.unknown) or "nothing",
            "bounds of validity": ", ".join(f"{name} {bound:g}" for name, bound in column.run.validity.bounds.items()),
        }
        for name, value in known.items():
            facts.setdefault(name, []).append(value or "not shown by this machine")
    rows = []
    for name, values in facts.items():
        rows.append(tag("tr", tag("th", name, scope="row"), *(tag("td", value, class_="wrap") for value in values)))
    head = tag("tr", tag("th", ""), *(tag("th", f"{c.letter}: {c.run.machine.device}", scope="col") for c in shown))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll", tabindex="0")


def _legend(colours: dict[str, str]) -> Markup:
    items = (tag("li", tag("i", style=f"background:{value}"), name) for name, value in colours.items())
    return tag("figcaption", tag("ul", join(items), class_="legend"))


def _keys(shown: Sequence[Column]) -> list[str]:
    return list(dict.fromkeys(c.key for column in shown for c in column.run.candidates))
