"""`stage2 bench`: how fast each artifact is here, against what stock tools make of the same weights."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litehrnet_stage2.apps import console
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.progress import Progress

if TYPE_CHECKING:
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.latency import Plan, Result
    from litehrnet_stage2.runtime.latency.lanes import Lane


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
            help="Baselines of the same weights to time beside, of `fp32`, `stock` (int8 by stock tools) and `litert`, "
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
    with console.working(verbose=verbose) as progress:
        result = run(
            bundle,
            runtimes=runtime,
            threads=threads,
            tier=tier,
            affinity=parse_cores(affinity),
            groups=[group for group in against.split(",") if group],
            sustained_min=sustained,
            device=device,
            progress=progress,
        )
        console.write_json(result, json)
    if str(json) != "-":
        from litehrnet_stage2.apps.reporting.terminal import show

        for one in result.runs:
            show(one, console.out)
    judged = (c for one in result.runs for c in one.candidates if c.exact or c.least_sqnr_db)
    raise typer.Exit(1 if any(c.failure for c in judged) else 0)


def run(
    folder: Path,
    *,
    runtimes: list[str] | None,
    threads: list[int] | None,
    tier: str,
    affinity: tuple[int, ...],
    groups: list[str],
    sustained_min: float,
    device: str | None = None,
    progress: Progress,
) -> Result:
    """Check what is asked, build the baselines, time everything."""
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.latency import (
        SCHEMA_VERSION,
        Plan,
        Result,
        bundle_candidates,
        measure,
        tier_named,
        try_candidates,
    )

    opened = Bundle.open(folder)
    plan = Plan(tier=tier_named(tier), affinity=affinity, sustained_min=sustained_min)
    on_mac = "coreml" in (runtimes or ())
    with contextlib.ExitStack() as open_:
        if on_mac:
            from litehrnet_stage2.runtime.latency.lanes.mac import mac_candidates

            beside = {"another --runtime": runtimes != ["coreml"], "--threads": threads, "--against": groups}
            if given := [option for option, there in beside.items() if there]:
                raise InputError(f"coreml is timed alone, on every set of compute units: leave out {', '.join(given)}")
            candidates = mac_candidates(opened)
        else:
            candidates = bundle_candidates(opened, runtimes=runtimes, threads=threads or [1])
        lane = _lane(opened, plan, open_, on_mac=on_mac, device=device, progress=progress)
        lane.check(candidates)  # before what takes minutes
        if device is None and not on_mac:
            try_candidates(opened, candidates)
        weights = "the bundle's"
        if groups:
            from litehrnet_stage2.apps.baselines.build import WEIGHTS, baseline_candidates

            candidates += baseline_candidates(opened, groups, threads=threads or [1], progress=progress)
            weights = WEIGHTS
        measured = measure(lane, candidates, progress=progress)
    return Result(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=" ".join(["stage2", *sys.argv[1:]]),
        tier=tier,
        golden_sha256=opened.manifest.golden_sha256,
        weights=weights,
        runs=(measured,),
    )


def _lane(
    bundle: Bundle,
    plan: Plan,
    open_: contextlib.ExitStack,
    *,
    on_mac: bool,
    device: str | None,
    progress: Progress,
) -> Lane:
    """Where to run; `open_` closes it."""
    if on_mac:
        from litehrnet_stage2.runtime.latency.lanes.mac import MacLane
        from litehrnet_stage2.runtime.program import check_system, library_version

        instead = "; nothing here can stand in for its latency"
        check_system("coreml", f"stage2 bench {bundle.folder} --runtime coreml", instead)
        library_version("coreml")
        return open_.enter_context(MacLane(bundle, plan))
    if device is not None:
        from litehrnet_stage2.runtime.devices import parse_device
        from litehrnet_stage2.runtime.latency.lanes.remote import DeviceLane

        return DeviceLane(bundle, open_.enter_context(parse_device(device, progress=progress)), plan)
    from litehrnet_stage2.runtime.latency.lanes.local import LocalLane

    return LocalLane(bundle, plan)


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
