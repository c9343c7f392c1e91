"""`stage2 bench --runtime coreml`: a bundle's Core ML packages on a Mac, on every set of compute units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from litehrnet_stage2.apps import console
from litehrnet_stage2.reference.errors import InputError

if TYPE_CHECKING:
    from litehrnet_stage2.runtime.coreml.mac_bench import MacResult, UnitResult


def bench_coreml(folder: Path, beside: Sequence[str], *, tier: str, json: Path | None, verbose: bool) -> int:
    """Time the packages and print or write the result; the exit code: 1 if outputs were wrong.

    `beside` names options that were given and do not apply.
    """
    with console.working(verbose=verbose) as progress:
        from litehrnet_stage2.runtime import Bundle
        from litehrnet_stage2.runtime.coreml.mac_bench import measure
        from litehrnet_stage2.runtime.coreml.mac_session import check_mac

        if beside:
            raise InputError(f"coreml is timed alone, on every set of compute units: leave out {', '.join(beside)}")
        opened = Bundle.open(folder)
        check_mac(f"stage2 bench {folder} --runtime coreml", "nothing here can stand in for its latency")
        result = measure(opened, tier=tier, progress=progress)
        console.write_json(result, json)
    if str(json) != "-":
        show(result)
    return 1 if any(unit.wrong for unit in result.units) else 0


def show(result: MacResult) -> None:
    """Print the table of units, why some have no numbers, and what Core ML planned."""
    host = result.host
    title = f"{host.model}, {host.chip}, macOS {host.macos} ({host.os_build})" if host else "No prediction succeeded"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("package", "units", "p50 ms", "95%", "p90 ms", "load ms", "first", "outputs", "thermal"):
        table.add_column(column, justify="left" if column in ("package", "units", "outputs", "thermal") else "right")
    for unit in result.units:
        if unit.latency is None:
            table.add_row(unit.target, unit.unit, "[red]none[/]")
            continue
        p50, p90 = unit.latency.p50_ms, unit.latency.p90_ms
        table.add_row(
            unit.target,
            unit.unit,
            f"{p50.value:.2f}",
            f"{p50.low:.2f}-{p50.high:.2f}",
            f"{p90.value:.2f}",
            f"{median(unit.load_ms):.1f}",
            f"{median(unit.first_ms):.1f}",
            f"[bold red]{_outputs(unit)}[/]" if unit.wrong else _outputs(unit),
            ", ".join(dict.fromkeys(unit.thermal)),
        )
    console.out.print(table)
    for unit in result.units:
        if unit.failure:
            console.out.print(unit.failure, style="red", markup=False, highlight=False)
        if unit.plan is not None:
            where = Counter(operation.preferred or "unknown" for operation in unit.plan)
            planned = ", ".join(f"{count} on {device}" for device, count in where.most_common())
            console.out.print(f"{unit.target} on {unit.unit}: Core ML plans {planned}", highlight=False)


def _outputs(unit: UnitResult) -> str:
    if unit.parity is not None:
        off = sum(output.mismatches for output in unit.parity.values())
        return f"{off:,} of {sum(output.compared for output in unit.parity.values()):,} codes off"
    fidelity = unit.fidelity or {}
    return ", ".join(f"{name} {output.sqnr_db:.1f} dB" for name, output in fidelity.items())
