"""`stage2 parity`: every code of every runtime against the golden ones, or its fidelity to the float network."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, Union

import typer
from rich.markup import escape

from litehrnet_stage2.apps import console, quality
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.progress import Progress, silent

if TYPE_CHECKING:
    from litehrnet_stage2.reference.contract.manifest import TensorSpec
    from litehrnet_stage2.runtime import Bundle, FidelityResult, Golden, ParityResult
    from litehrnet_stage2.runtime.program import Array

Checked: TypeAlias = Union["ParityResult", "FidelityResult"]
"""What became of one runtime: of an exact one its codes, of one with a function of its own its fidelity."""


def parity(
    bundle: Annotated[Path, typer.Argument(help="A folder that `stage2 convert` made.", metavar="DIR")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Check this runtime; may be given several times. Default: all the bundle has artifacts for."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Inputs float32 [N,C,H,W] or, of pixels, uint8, in a .npy, or in a .npz by name where there are "
            "several, instead of the golden ones. They are snapped to the input grid; what happens without is "
            "reported apart."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of each runtime.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to run: emulated:cortex-a76 (or neoverse-n1, cortex-a72, i8mm), ssh:user@host[:port], "
            "adb[:serial], or local for the native runner here. Default: this Python."
        ),
    ] = None,
    json: console.JsonFile = None,
    verbose: console.Verbose = False,
) -> None:
    """Run a bundle's artifacts and compare their int8 codes with the golden ones. Exit 1 if any differs.

    The Neural Engine's form (`coreml-eval-ane`, `coreml-ane`) computes another function: it is compared with
    the float network instead, and fails if it is further from that than the golden codes by more than 0.5 dB.

    Examples:

        stage2 parity bundle

        stage2 parity bundle --runtime onnxruntime --inputs features.npy --json parity.json

        stage2 parity bundle --runtime coreml-eval --runtime coreml-eval-ane

        stage2 parity bundle --device emulated:cortex-a76
    """
    with console.working(verbose=verbose) as progress:
        results = check_bundle(
            bundle, runtimes=runtime, inputs=inputs, threads=threads, device=device, progress=progress
        )
        found = quality.quality(bundle)
        console.write_json([plain(result) for result in results], json)
    if str(json) != "-":
        show(results)
        quality.show(found)
    raise typer.Exit(0 if all(result.passed for result in results) else 1)


def check_bundle(
    folder: Path,
    *,
    runtimes: list[str] | None = None,
    inputs: Path | None = None,
    threads: int = 1,
    device: str | None = None,
    progress: Progress = silent,
) -> list[Checked]:
    """Check each runtime in turn; without a choice, golden and those whose artifact computes its function.

    Raises:
        ValueError: `inputs` for a runtime that is compared with the float network.
        BundleError, RuntimeUnavailableError: a runtime cannot be opened.
    """
    from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
    from litehrnet_stage2.runtime import OWN_FUNCTION, Bundle, check_fidelity, check_parity, expected, open_session

    opened = Bundle.open(folder)
    chosen = runtimes is not None
    if runtimes is None and device is not None:
        runtimes = [name for name, way in DEVICE_RUNTIMES.items() if way.runs_any(opened.manifest.artifacts)]
    elif runtimes is None:
        runtimes = default_runtimes(opened.manifest.artifacts, progress)
    runtimes = list(dict.fromkeys(runtimes))
    golden, due = opened.golden(), None
    unsnapped: tuple[Array, ...] = ()
    if inputs is not None:
        if own := [name for name in runtimes if name in OWN_FUNCTION]:
            raise InputError(
                f"{own[0]} is compared with the float network, whose outputs the bundle has for the golden inputs "
                "alone: leave out --inputs"
            )
        progress("evaluating the golden codes")
        unsnapped = _load(inputs, opened.manifest.inputs)
        due = expected(opened.function(), *unsnapped)
    if device is not None:
        return _check_on_device(
            device, opened, runtimes, due or golden, unsnapped, chosen=chosen, threads=threads, progress=progress
        )
    results: list[Checked] = []
    for name in runtimes:
        progress(f"running {name}")
        session = open_session(opened, name, threads=threads)
        if name in OWN_FUNCTION:
            results.append(check_fidelity(session, golden))
        else:
            results.append(check_parity(session, due or golden, unsnapped=unsnapped))
    return results


def _load(path: Path, specs: Sequence[TensorSpec]) -> tuple[Array, ...]:
    from litehrnet_stage2.apps.features_file import load_features
    from litehrnet_stage2.apps.network_source import InputDeclaration, load_inputs

    if len(specs) == 1 and specs[0].kind == "float" and path.suffix != ".npz":
        return (load_features(path, specs[0].shape[1]),)
    declared = [InputDeclaration(spec.name, spec.shape, spec.kind == "pixels") for spec in specs]
    return load_inputs(path, declared, most=None)


def _check_on_device(
    name: str,
    bundle: Bundle,
    runtimes: Sequence[str],
    due: Golden,
    unsnapped: Sequence[Array],
    *,
    chosen: bool,
    threads: int,
    progress: Progress,
) -> list[Checked]:
    """Check each runtime on a device; what has to be built or unpacked for it is, once.

    A device need not have every library: unless it was `chosen`, a runtime is left out where its library is missing.

    Raises:
        ValueError: no such device, or a runtime that devices do not have.
        DeviceError: the device cannot be reached, or lacks the runtime.
    """
    from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
    from litehrnet_stage2.runtime import check_parity
    from litehrnet_stage2.runtime.devices import DeviceError, parse_device
    from litehrnet_stage2.runtime.programs.device_program import open_device_session

    results: list[Checked] = []
    with parse_device(name, progress=progress) as device:
        for runtime in runtimes:
            if not chosen and runtime in DEVICE_RUNTIMES:
                try:
                    device.library_version(DEVICE_RUNTIMES[runtime].library)
                except DeviceError as error:
                    progress(f"leaving out {runtime}: {error}")
                    continue
            progress(f"running {runtime} on {name}")
            with open_device_session(bundle, runtime, device, threads=threads) as session:
                found = check_parity(session, due, unsnapped=unsnapped)
            results.append(dataclasses.replace(found, device=device.facts()))
    return results


def default_runtimes(artifacts: Container[str], progress: Progress) -> list[str]:
    """Golden, and a runtime for each artifact that computes the integer function and can be run here."""
    from litehrnet_stage2.reference.contract.artifacts import LIBRARIES, RUNTIMES

    runtimes = []
    for name, runtime in RUNTIMES.items():
        if not (runtime.runs_any(artifacts) and runtime.exact and runtime.checks):
            continue
        missing = [p for p in LIBRARIES[runtime.library].packages if importlib.util.find_spec(p) is None]
        if missing:
            progress(f"leaving out {name}, which needs {' and '.join(missing)}")
        else:
            runtimes.append(name)
    return runtimes


def plain(result: Checked) -> dict[str, object]:
    """A result as JSON has it; `kind` tells codes from fidelity."""
    from litehrnet_stage2.runtime import FidelityResult

    values = dataclasses.asdict(result)
    if isinstance(result, FidelityResult):
        for name, output in result.outputs.items():
            values["outputs"][name] |= {"bound_db": output.bound_db, "passed": output.passed}
        return {"kind": "fidelity", "passed": result.passed, **values}
    return {"kind": "codes", "passed": result.passed, **values}


def show(results: Sequence[Checked]) -> None:
    """Print a table of those compared by codes, and one of those compared with the float network."""
    from litehrnet_stage2.runtime import ParityResult

    codes = [result for result in results if isinstance(result, ParityResult)]
    fidelity = [result for result in results if not isinstance(result, ParityResult)]
    if codes:
        show_codes(codes)
    if fidelity:
        show_fidelity(fidelity)


def show_codes(results: Sequence[ParityResult]) -> None:
    """Print the table, and the flips where inputs lay off the grid."""
    table = console.table(
        *("runtime", "output", "compared", "mismatches", "largest", "SHA-256"),
        title=f"Parity with the golden codes, {results[0].images} inputs",
        right=("compared", "mismatches", "largest"),
    )
    for result in results:
        for index, (name, output) in enumerate(result.outputs.items()):
            noise = "" if output.sqnr_db is None else f", {output.sqnr_db:.1f} dB"
            table.add_row(
                "" if index else escape(f"{result.session.runtime} {result.session.version}"),
                escape(name),
                f"{output.compared:,}",
                f"[bold red]{output.mismatches:,}[/]" if output.mismatches else "[green]0[/]",
                f"{output.max_lsb}{noise}",
                "" if index else result.codes_sha256[:10],
            )
    console.out.print(table)
    if (device := results[0].device) is not None:
        kind = "emulated: parity holds, time means nothing" if device.emulated else device.soc or device.arch
        console.out.print(
            f"On {device.device} ({kind}), {', '.join(device.features) or 'no int8 extensions'}",
            markup=False,
            highlight=False,
        )
        if device.has_sme:
            console.out.print(
                "This CPU has SME: the runtimes may choose kernels that others do not have.", highlight=False
            )
    for result in results:
        if flips := result.flips:
            console.out.print(
                f"{result.session.runtime}: without snapping, {flips.off_grid:,} of {flips.inputs:,} inputs lay off "
                f"the grid and {flips.outputs:,} of {flips.compared:,} output codes differ "
                f"({flips.outputs / flips.compared:.2e})",
                highlight=False,
            )


def show_fidelity(results: Sequence[FidelityResult]) -> None:
    """Print the signal to noise of each output, and what it has to reach."""
    table = console.table(
        *("runtime", "output", "its own", "golden codes", "at least", "verdict"),
        title=f"Fidelity to the float network, {results[0].images} inputs, signal to noise in dB",
        right=("its own", "golden codes", "at least"),
    )
    for result in results:
        for index, (name, output) in enumerate(result.outputs.items()):
            table.add_row(
                "" if index else escape(f"{result.session.runtime} {result.session.version}"),
                escape(name),
                *(f"{value:.2f}" for value in (output.sqnr_db, output.golden_sqnr_db, output.bound_db)),
                "[green]pass[/]" if output.passed else "[bold red]fail[/]",
            )
    console.out.print(table)
