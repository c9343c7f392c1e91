"""`stage2 bench`: how fast each artifact is here, against what stock tools make of the same weights."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from litehrnet_stage2.apps import console
from litehrnet_stage2.apps.bench_coreml import bench_coreml
from litehrnet_stage2.reference.errors import InputError

if TYPE_CHECKING:
    from litehrnet_stage2.runtime.latency import CandidateResult, Result, Run
    from litehrnet_stage2.runtime.latency.result import Ratio


def bench(
    bundle: Annotated[Path, typer.Argument(help="A folder that `stage2 convert` made.", metavar="DIR")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Time this runtime; may be given several times. Default: all the bundle has artifacts for."),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads of each runtime; may be given several times. Default: 1.")
    ] = None,
    tier: Annotated[
        str,
        typer.Option(help="quick (64 queries, 6 s a candidate), standard (128, 10 s) or full (1024, 60 s), at least."),
    ] = "standard",
    affinity: Annotated[str, typer.Option(help="Cores to stay on, e.g. `0,2-3`. Default: any.")] = "",
    against: Annotated[
        str,
        typer.Option(
            help="Peers of the same weights to time beside, of `fp32`, `stock` (int8 by stock tools) and `litert`, "
            "separated by commas; built on demand."
        ),
    ] = "",
    sustained: Annotated[
        float, typer.Option(metavar="MINUTES", help="Then run each for so long without a pause.")
    ] = 0.0,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to run: ssh:user@host[:port], adb[:serial], or local for the native runner; on "
            "emulated:cortex-a76 (neoverse-n1, cortex-a72, i8mm) instructions are counted. Default: this Python."
        ),
    ] = None,
    json: console.JsonFile = None,
    verbose: console.Verbose = False,
) -> None:
    """Time a bundle's artifacts on this machine. Exit 1 if an artifact's codes were wrong: it gets no number.

    Every repetition is a fresh process, candidates take turns, and parity is checked before and after the
    timing. The verdict says whether the numbers can be trusted; `stage2 report` makes a page of the JSON.

    Examples:

        stage2 bench bundle --tier quick --against stock,fp32 --json result.json

        stage2 bench bundle --runtime executorch --threads 1 --threads 4 --affinity 4-7

        stage2 bench bundle --runtime coreml   (on a Mac, alone: every set of compute units)
    """
    if runtime and "coreml" in runtime:
        options = {
            "another --runtime": runtime != ["coreml"],
            "--threads": threads,
            "--affinity": affinity,
            "--against": against,
            "--sustained": sustained,
        }
        beside = [option for option, given in options.items() if given]
        raise typer.Exit(bench_coreml(bundle, beside, tier=tier, json=json, verbose=verbose))
    with console.working(verbose=verbose) as progress:
        result = run(
            bundle,
            runtimes=runtime,
            threads=threads or [1],
            tier=tier,
            affinity=parse_cores(affinity),
            groups=[group for group in against.split(",") if group],
            sustained_min=sustained,
            device=device,
            progress=progress,
        )
        console.write_json(result, json)
    if str(json) != "-":
        for one in result.runs:
            show(one)
    wrong = [c for one in result.runs for c in one.candidates if c.exact and c.failure]
    raise typer.Exit(1 if wrong else 0)


def run(
    folder: Path,
    *,
    runtimes: list[str] | None,
    threads: list[int],
    tier: str,
    affinity: tuple[int, ...],
    groups: list[str],
    sustained_min: float,
    device: str | None = None,
    progress: console.Progress,
) -> Result:
    """Check what is asked, build the peers, time everything."""
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.latency import (
        SCHEMA_VERSION,
        Result,
        Settings,
        bundle_candidates,
        run_benchmark,
        tier_named,
    )

    opened = Bundle.open(folder)
    settings = Settings(tier=tier_named(tier), affinity=affinity, sustained_min=sustained_min)
    candidates = bundle_candidates(opened, runtimes=runtimes, threads=threads)
    weights = "the bundle's"
    if groups:
        from litehrnet_stage2.converters.peers import WEIGHTS, peer_candidates

        candidates += peer_candidates(opened, groups, threads=threads, progress=progress)
        weights = WEIGHTS
    if device is not None:
        from litehrnet_stage2.runtime.devices import parse_device
        from litehrnet_stage2.runtime.latency.on_device import run_on_device

        with parse_device(device, progress=progress) as there:
            measured = run_on_device(opened, there, candidates, settings, progress=progress)
    else:
        measured = run_benchmark(opened, candidates, settings, progress=progress)
    return Result(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["stage2", *sys.argv[1:]]),
        tier=tier,
        golden_sha256=opened.manifest.golden_sha256,
        weights=weights,
        runs=(measured,),
    )


def parse_cores(text: str) -> tuple[int, ...]:
    """The cores that `0,2-3` names.

    Raises:
        ValueError: it names none that way.
    """
    cores: list[int] = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise InputError(f"--affinity {text!r} names no cores: the form is `0,2-3`")
        cores += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(cores))


def show(run: Run) -> None:
    """Print the table of latencies, the ratios and the verdict."""
    cores = ", ".join(f"{len(kind.cores)} x {kind.name}" for kind in run.machine.cores) or run.machine.arch
    if run.machine.emulated:
        console.out.print(_instructions(run))
    else:
        console.out.print(_latencies(run, f"{run.machine.device}: {cores}"))
    if run.ratios:
        console.out.print(_ratios(run))
    for candidate in run.candidates:
        if candidate.failure:
            console.out.print(f"{candidate.key}: {candidate.failure}", style="red", markup=False, highlight=False)
        if candidate.sustained:
            console.out.print(
                f"{candidate.key}: after {len(candidate.sustained.p50_ms) * candidate.sustained.window_s:.0f} s "
                f"without a pause, {candidate.sustained.last_to_first:.3f} of the first window's latency",
                highlight=False,
            )
    if run.machine.emulated:
        console.out.print("Emulated: instructions are a cost that repeats, not a latency", highlight=False)
        return
    if run.validity.valid:
        console.out.print("[green]valid[/]: no load, throttling, spread or drift beyond the stated bounds")
        return
    if run.only_ratios_valid:
        console.out.print("[bold red]milliseconds not valid[/], [green]ratios valid[/]: the candidates alternated")
    else:
        console.out.print("[bold red]not valid[/]: do not rely on these numbers")
    for reason in run.validity.reasons:
        console.out.print(f"  {reason}", markup=False, highlight=False)


def _instructions(run: Run) -> Table:
    table = Table(title=f"{run.machine.device}, one thread", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("artifact", "instructions per inference", "codes off"):
        table.add_column(column, justify="left" if column == "artifact" else "right")
    for c in run.candidates:
        counted = f"{c.instructions.per_inference / 1e6:.2f} M" if c.instructions else "[red]none[/]"
        table.add_row(f"[bold]{c.name}[/]" if c.exact else c.name, counted, _differing(c))
    return table


def _latencies(run: Run, title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("artifact", "p50 ms", "95%", "p90 ms", "load ms", "first", "MiB", "codes off"):
        table.add_column(column, justify="left" if column == "artifact" else "right")
    several = len({c.threads for c in run.candidates}) > 1
    for c in run.candidates:
        name = c.key if several else c.name
        if c.latency is None or c.cold is None:
            table.add_row(name, "[red]none[/]", "", "", "", "", "", _differing(c))
            continue
        p50 = c.latency.p50_ms
        table.add_row(
            f"[bold]{name}[/]" if c.exact else name,
            f"{p50.value:.2f}",
            f"{p50.low:.2f}-{p50.high:.2f}",
            f"{c.latency.p90_ms.value:.2f}",
            f"{_median(c.cold.load_ms):.1f}",
            f"{_median(c.cold.first_ms):.1f}",
            f"{c.memory.rss_peak_mib:.0f}" if c.memory else "",
            _differing(c),
        )
    return table


def _ratios(run: Run) -> Table:
    """Ratios of our artifacts to the peers, a column for each artifact."""
    ours = list(dict.fromkeys(ratio.numerator for ratio in run.ratios))
    title = "Latency over the peer's, its 95% interval, and the same of CPU time"
    if run.machine.emulated:
        title = "Instructions over the peer's"
    table = Table("against", *ours, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for peer in dict.fromkeys(ratio.denominator for ratio in run.ratios):
        cells = []
        for name in ours:
            found = next((r for r in run.ratios if r.numerator == name and r.denominator == peer), None)
            cells.append(_ratio(found, run) if found else "")
        table.add_row(peer, *cells)
    return table


def _ratio(ratio: Ratio, run: Run) -> str:
    if run.machine.emulated:
        return f"[bold]{ratio.ratio.value:.2f}[/]"
    cpu = "" if ratio.cpu_time is None else f"\ncpu {ratio.cpu_time:.2f}"
    return f"[bold]{ratio.ratio.value:.2f}[/] {ratio.ratio.low:.2f}-{ratio.ratio.high:.2f}{cpu}"


def _differing(candidate: CandidateResult) -> str:
    """How many codes are not the golden ones; of a peer, as a share."""
    parity = candidate.parity_after or candidate.parity_before
    if parity is None:
        return ""
    mismatches = sum(output.mismatches for output in parity.values())
    if candidate.exact:
        return "0" if not mismatches else f"[bold red]{mismatches:,}[/]"
    return f"{mismatches / sum(output.compared for output in parity.values()):.0%}"


def _median(values: tuple[float, ...]) -> float:
    import numpy as np

    return float(np.median(values))
