"""`stage2 doctor`: what this machine can do, what is missing, and the command that adds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.text import Text

from litehrnet_stage2.apps import console

if TYPE_CHECKING:
    from rich.table import Table

    from litehrnet_stage2.runtime.capabilities import Capability


def doctor(json: console.JsonFile = None, verbose: console.Verbose = False) -> None:
    """Show runtimes, converters, processor features and devices, and what is missing for each.

    Exit 1 if no runtime can run an artifact here.

    Example:

        stage2 doctor
    """
    with console.working(verbose=verbose) as progress:
        from litehrnet_stage2.runtime.capabilities import capabilities

        progress("looking around")
        found = capabilities()
        console.write_json([{**vars(capability)} for capability in found], json)
    if str(json) != "-":
        console.out.print(_table(found))
    able = any(c.ready for c in found if c.group == "runtime")
    raise typer.Exit(0 if able else 1)


def _table(found: tuple[Capability, ...]) -> Table:
    table = console.table("", "what", "ready", "with what, or how to add it")
    group = ""
    for c in found:
        detail = Text(c.detail)
        if c.remedy:
            detail.append(f"\n{c.remedy}", style="bold")
        ready = Text("yes", style="green") if c.ready else Text("no", style="yellow")
        table.add_row(c.group if c.group != group else "", Text(c.name), ready, detail)
        group = c.group
    return table
