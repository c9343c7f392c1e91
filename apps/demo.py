"""`stage2 demo`: the main job to its end, on what the project ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from litehrnet_stage2.apps import check_bundle, console, convert, quality
from litehrnet_stage2.reference.contract.artifacts import DEFAULT_TARGETS


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle.")] = Path("bundle"),
    verbose: console.Verbose = False,
) -> None:
    """Convert what ships, Stage2 alone and a whole network, and check that every runtime gives the same codes.

    Then the whole network's int8 looks for the marker in a photograph, and the picture with its answer is written.

    Example:

        stage2 demo
    """
    with console.working(verbose=verbose) as progress:
        from litehrnet_stage2.apps.landmarks.whole import convert_landmarks, draw_found

        convert.convert_to_bundle(
            out,
            checkpoint=None,
            calibration=None,
            targets=list(DEFAULT_TARGETS),
            progress=progress,
        )
        results = check_bundle.check_bundle(out, runtimes=None, inputs=None, threads=1, progress=progress)
        found = quality.quality(out)
        progress("the whole network, from pixels to answer")
        whole = out.with_name(f"{out.name}-landmarks")
        convert_landmarks(whole, targets=list(DEFAULT_TARGETS), progress=progress)
        whole_results = check_bundle.check_bundle(whole, runtimes=None, inputs=None, threads=1, progress=progress)
        whole_found = quality.quality(whole)
        picture = out.with_name(f"{out.name}-landmarks.png")
        error_px = draw_found(whole, picture)
    check_bundle.show(results)
    quality.show(found)
    console.out.print(f"Bundle: {out}", markup=False, highlight=False, soft_wrap=True)
    check_bundle.show(whole_results)
    quality.show(whole_found)
    console.out.print(f"Bundle: {whole}", markup=False, highlight=False, soft_wrap=True)
    console.out.print(
        f"The marker, found by the int8 network {error_px:.2f} px from where it is: {picture}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    raise typer.Exit(0 if all(result.passed for result in (*results, *whole_results)) else 1)
