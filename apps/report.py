"""`stage2 report`: benchmark results as one page a person can read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litehrnet_stage2.apps import console


def report(
    results: Annotated[list[Path], typer.Argument(help="Files that `stage2 bench --json` wrote.", metavar="RESULT...")],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", callback=console.writable, help="Write a self-contained page here; `-` is standard output."
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown", callback=console.writable, help="Write the tables as Markdown here; `-` is standard output."
        ),
    ] = None,
    verbose: console.Verbose = False,
) -> None:
    """Make a page of benchmark results, several machines or dates side by side. Without an option: Markdown, printed.

    Examples:

        stage2 report result.json --html report.html

        stage2 report laptop.json phone.json --html report.html --markdown table.md
    """
    with console.working(verbose=verbose):
        from litehrnet_stage2.apps.reporting.markdown import markdown as as_markdown
        from litehrnet_stage2.apps.reporting.page import page
        from litehrnet_stage2.runtime.latency import read_result

        read = [read_result(path) for path in results]
        if html is not None:
            console.write_text(page(read), html)
        if markdown is not None or html is None:
            console.write_text(as_markdown(read), markdown or Path("-"))
