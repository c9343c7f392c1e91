"""`stage2 demo`: the main job to its end, on what the project ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litehrnet_stage2.apps import console, convert, parity, quality
from litehrnet_stage2.reference.contract.artifacts import DEFAULT_TARGETS


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")] = Path("bundle"),
    verbose: console.Verbose = False,
) -> None:
    """Convert the shipped Stage2 to the default artifacts and check that every runtime gives the same codes.

    Example:

        stage2 demo
    """
    with console.working(verbose=verbose) as progress:
        convert.convert_to_bundle(
            out,
            checkpoint=None,
            calibration=None,
            targets=list(DEFAULT_TARGETS),
            progress=progress,
        )
        results = parity.check_bundle(out, runtimes=None, inputs=None, threads=1, progress=progress)
        found = quality.quality(out)
    parity.show(results)
    quality.show(found)
    console.out.print(f"Bundle: {out}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(result.passed for result in results) else 1)
