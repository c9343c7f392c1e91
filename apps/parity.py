"""`stage2 parity`: every code of every runtime against the golden ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from litehrnet_stage2.apps import console

if TYPE_CHECKING:
    from litehrnet_stage2.runtime import ParityResult


def parity(
    bundle: Annotated[Path, typer.Argument(help="A folder that `stage2 convert` made.", metavar="DIR")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Check this runtime; may be given several times. Default: all the bundle has artifacts for."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Features float32 [N,32,H,W] in a .npy, instead of the golden inputs. They are snapped to the "
            "input grid; what happens without is reported apart."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each runtime.")] = 1,
    json: console.JsonFile = None,
    verbose: console.Verbose = False,
) -> None:
    """Run a bundle's artifacts and compare their int8 codes with the golden ones. Exit 1 if any differs.

    Examples:

        stage2 parity bundle

        stage2 parity bundle --runtime onnxruntime --inputs features.npy --json parity.json
    """
    with console.working(verbose=verbose) as progress:
        results = check_bundle(bundle, runtimes=runtime, inputs=inputs, threads=threads, progress=progress)
        console.write_json([plain(result) for result in results], json)
    if str(json) != "-":
        show(results)
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


def check_bundle(
    folder: Path,
    *,
    runtimes: list[str] | None,
    inputs: Path | None,
    threads: int,
    progress: console.Progress,
) -> list[ParityResult]:
    """Check each runtime in turn; without a choice, golden and those that have an artifact in the bundle."""
    from litehrnet_stage2.apps.features_file import load_features
    from litehrnet_stage2.runtime import Bundle, check_parity, expected, open_session

    opened = Bundle.open(folder)
    given = {"golden": "golden", "executorch": "executorch", "onnx": "onnxruntime"}
    if runtimes is None:
        runtimes = ["golden", *(given[name] for name in opened.manifest.artifacts if name in given)]
    if inputs is None:
        due, unsnapped = opened.golden(), None
    else:
        progress("evaluating the golden codes")
        unsnapped = load_features(inputs, opened.manifest.input.shape[1])
        due = expected(opened.function(), unsnapped)
    results = []
    for name in runtimes:
        progress(f"running {name}")
        results.append(check_parity(open_session(opened, name, threads=threads), due, unsnapped=unsnapped))
    return results


def plain(result: ParityResult) -> dict[str, object]:
    """A result as JSON has it."""
    return {"passed": result.passed, **dataclasses.asdict(result)}


def show(results: list[ParityResult]) -> None:
    """Print the table, and the flips where inputs lay off the grid."""
    table = Table(title=f"Parity with the golden codes, {results[0].images} inputs")
    for column in ("runtime", "output", "compared", "mismatches", "largest", "SHA-256 of codes"):
        table.add_column(column, justify="right" if column in ("compared", "mismatches", "largest") else "left")
    for result in results:
        for index, (name, output) in enumerate(result.outputs.items()):
            noise = "" if output.sqnr_db is None else f", {output.sqnr_db:.1f} dB"
            table.add_row(
                "" if index else f"{result.session.runtime} {result.session.version}",
                name,
                f"{output.compared:,}",
                f"[bold red]{output.mismatches:,}[/]" if output.mismatches else "[green]0[/]",
                f"{output.max_lsb} steps{noise}",
                "" if index else result.codes_sha256[:16],
            )
    console.out.print(table)
    for result in results:
        if flips := result.flips:
            console.out.print(
                f"{result.session.runtime}: without snapping, {flips.off_grid:,} of {flips.inputs:,} inputs lay off "
                f"the grid and {flips.outputs:,} of {flips.compared:,} output codes differ "
                f"({flips.outputs / flips.compared:.2e})",
                highlight=False,
            )
