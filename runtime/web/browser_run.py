"""Turns what a page reported into the result that `stage2 report` reads, each name in it marked `web`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.latency import Bounds, intervals, judge
from litehrnet_stage2.runtime.latency.result import CandidateResult, Cold, Conditions, Environment, Ratio, Run, Validity
from litehrnet_stage2.runtime.parity import OutputParity, ParityResult
from litehrnet_stage2.runtime.session import SessionInfo
from litehrnet_stage2.runtime.web import vendor
from litehrnet_stage2.runtime.web.browser import browser
from litehrnet_stage2.runtime.web.golden_codes import GoldenCodes
from litehrnet_stage2.runtime.web.protocol import Model, Report
from litehrnet_stage2.runtime.web.visits import Visit

LIBRARY = "onnxruntime-web"

STRETCHES = 4
"""A page is one process. Its turns are judged in so many stretches, as the processes of a benchmark are."""

CLOCK_SHARE = 0.01
"""Of the shortest turn, that a step of the clock may be."""

Stretches: TypeAlias = "list[intervals.Samples]"


def check(visit: Visit, codes: GoldenCodes, models: Mapping[str, Model]) -> list[ParityResult]:
    """The exact models whose codes all came, against the golden ones."""
    return [
        codes.compare_all(_info(codes, model), visit.differing.get(name, {}))
        for name, model in models.items()
        if model.exact and len(visit.compared.get(("before", name), ())) == codes.images
    ]


def measured(visit: Visit, report: Report, codes: GoldenCodes, models: Mapping[str, Model]) -> Run:
    """One page as a run: its parity, its times and what speaks against them."""
    candidates = tuple(_candidate(model, visit, report, codes) for model in models.values())
    ratios = _ratios(candidates, report)
    machine = DeviceFacts(
        device=f"web: {report.device or 'unnamed'}",
        emulated=False,
        arch=f"WebAssembly in {browser(visit.user_agent)}",
    )
    environment = Environment(
        os=visit.user_agent or "not shown",
        python="none, a browser",
        memory_mib=None,
        cores=report.cores,
        usable_cores=(),
        affinity=(),
        load_1min_before=None,
        load_1min_after=None,
        versions={LIBRARY: vendor.VERSION},
        git_revision=None,
    )
    verdict = judge(candidates, ratios, machine, environment, Bounds(), in_turns=True)
    return Run(
        machine=machine,
        environment=environment,
        validity=_with_page(verdict, report),
        candidates=candidates,
        ratios=ratios,
    )


def _info(codes: GoldenCodes, model: Model) -> SessionInfo:
    return SessionInfo(
        runtime=model.name,
        version=vendor.VERSION,
        artifact=model.file_name,
        sha256=model.sha256,
        threads=1,
        inputs=codes.inputs,
        outputs=codes.outputs,
    )


def _candidate(model: Model, visit: Visit, report: Report, codes: GoldenCodes) -> CandidateResult:
    before = _compared(visit, "before", model, codes)
    after = _compared(visit, "after", model, codes)
    wrong = sum(output.mismatches for found in (before, after) for output in (found or {}).values())
    failure = report.failure
    if failure is None and model.exact and wrong:
        failure = f"{wrong:,} codes differ from the golden ones: no number for it"
    result = CandidateResult(
        name=model.name,
        library=LIBRARY,
        version=vendor.VERSION,
        artifact=model.file_name,
        sha256=model.sha256,
        size_bytes=len(model.content),
        threads=1,
        exact=model.exact,
        baseline=not model.exact,
        floating=not model.exact,
        description=f"{model.description}; in a browser, a sample is the mean of a turn",
        images=codes.images,
        parity_before=before,
        parity_after=after,
        failure=failure,
    )
    times = report.models.get(model.name)
    if failure is not None or times is None or not times.turns:
        return result
    stretches = _stretches(report, model.name)
    return replace(
        result,
        latency=intervals.latency(stretches, warmup_queries=[times.warmup_queries], steady=times.steady),
        cold=Cold(load_ms=(times.load_ms,), first_ms=(times.first_ms,)),
        conditions=tuple(
            Conditions(round=number, p50_ms=float(np.median(samples)), turns=(1,) * len(samples))
            for number, samples in enumerate(stretches)
        ),
    )


def _stretches(report: Report, name: str) -> Stretches:
    """The mean of each turn in ms, in stretches."""
    means = np.array([turn.ms / turn.queries for turn in report.models[name].turns])
    return [stretch for stretch in np.array_split(means, STRETCHES) if len(stretch)]


def _compared(visit: Visit, which: str, model: Model, codes: GoldenCodes) -> dict[str, OutputParity] | None:
    found = visit.compared.get((which, model.name), {})
    return codes.total([found[index] for index in sorted(found)]) if len(found) == codes.images else None


def _ratios(candidates: Sequence[CandidateResult], report: Report) -> tuple[Ratio, ...]:
    """Each exact model over each baseline, turn by turn."""
    found = []
    for ours in candidates:
        for baseline in candidates:
            if ours.exact and baseline.baseline and ours.latency and baseline.latency:
                pair = [
                    [[np.array([mean]) for mean in stretch] for stretch in _stretches(report, name)]
                    for name in (ours.name, baseline.name)
                ]
                interval, rounds = intervals.ratio(*pair)
                found.append(Ratio(numerator=ours.key, denominator=baseline.key, ratio=interval, rounds=rounds))
    return tuple(found)


def _with_page(verdict: Validity, report: Report) -> Validity:
    """The verdict, and what speaks against the page or its clock."""
    against = tuple(_page(report))
    return replace(
        verdict,
        valid=verdict.valid and not against,
        reasons=against + verdict.reasons,
        ratio_reasons=against + verdict.ratio_reasons,
        bounds={**verdict.bounds, "clock_share": CLOCK_SHARE},
    )


def _page(report: Report) -> Iterator[str]:
    if report.failure is not None:
        yield report.failure
    if report.hidden:
        yield "the page was out of sight while it took times: keep it in front, with the screen on"
    shortest = min((turn.ms for times in report.models.values() for turn in times.turns), default=0.0)
    if shortest and report.clock_step_ms > CLOCK_SHARE * shortest:
        yield (
            f"the browser's clock steps by {report.clock_step_ms:g} ms, and a turn was {shortest:.0f} ms "
            f"(at most {CLOCK_SHARE:.0%} of it is trusted)"
        )
