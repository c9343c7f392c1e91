"""`stage2 convert`: a checkpoint becomes a bundle."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from litehrnet_stage2.apps import console, network_options, quality
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEFAULT_TARGETS
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from litehrnet_stage2.reference.contract.manifest import Manifest
    from litehrnet_stage2.reference.stage2 import Stage2

EXAMPLE_IMAGES = 16
MOST_CALIBRATION_MAPS = 512
GOLDEN_IMAGES = 3


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`(height, width)` of `HxW`, both even; a callback of an option.

    Raises:
        typer.BadParameter: it is not that.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    size = (int(found[1]), int(found[2])) if found else (1, 1)
    if any(length % 2 or not length for length in size):
        raise typer.BadParameter(f"{text!r} is not HxW, the even height and width of the features, such as 64x128")
    return size


def convert(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle; an older bundle is replaced.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="A .safetensors checkpoint, float or fine-tuned; with --network its state dict, or a fine-tuned one. "
            "Default: the weights that ship; with --network those that it has."
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Features float32 [N,32,H,W], a .npy, a folder of them or a quoted glob: they set the ranges of a "
            "float checkpoint and the size, and the first few become golden inputs. Default: what a fine-tuned "
            "checkpoint has kept; for the weights that ship, photographs through the example stem."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="HxW of the features to build for, if other than that of --calibration or the checkpoint."),
    ] = None,
    network: network_options.NetworkOption = None,
    inputs: network_options.InputOptions = None,
    outputs: network_options.OutputOptions = None,
    silu_floor: Annotated[
        float | None,
        typer.Option(
            help="Start no calibrated range of what enters a SiLU lower than this, such as -5, where SiLU is nearly "
            "zero: finer codes for the rest. It gains or loses 1 dB by the features; measure it.",
            max=-1,
        ),
    ] = None,
    targets: Annotated[
        str,
        typer.Option(
            help="Comma-separated artifacts to make. Of the integer function: "
            + "; ".join(f"{name}, {row.border}" for name, row in ARTIFACTS.items() if row.exact)
            + ". Of the Neural Engine's float16 form: "
            + ", ".join(name for name, row in ARTIFACTS.items() if not row.exact)
            + "."
        ),
    ] = ",".join(DEFAULT_TARGETS),
    coreml_target: Annotated[
        str, typer.Option(help="Oldest system for the Neural Engine's form: iOS17 or iOS18.")
    ] = "iOS17",
    json: console.JsonFile = None,
    verbose: console.Verbose = False,
) -> None:
    """Convert a Stage2 to ExecuTorch, LiteRT, ONNX and Core ML artifacts that compute one integer function.

    A float checkpoint is calibrated and quantised; a fine-tuned one (stage2 qat) is taken as it is.
    Every addition and SiLU is proved equal in all runtimes, or the conversion fails.

    Examples:

        stage2 convert --out bundle

        stage2 convert --checkpoint mine.safetensors --calibration features.npy --out bundle

        stage2 convert --checkpoint runs/qat/qat.safetensors --out bundle

        stage2 convert --network my_package.model:make --checkpoint w.safetensors
        --input images=1x3x256x512:pixels --calibration images.npy --out bundle
    """
    with console.working(verbose=verbose) as progress:
        named = [name.strip() for name in targets.split(",") if name.strip()]
        chosen = None if named == list(DEFAULT_TARGETS) else named
        if network is not None:
            manifest = _convert_named(
                network,
                out,
                checkpoint,
                inputs or [],
                outputs,
                calibration,
                chosen,
                coreml_target,
                progress,
            )
        elif inputs or outputs:
            raise InputError("--input and --output belong to a whole network: name it with --network MODULE:NAME")
        else:
            manifest = convert_to_bundle(
                out,
                checkpoint=checkpoint,
                calibration=calibration,
                size=parse_size(size),
                silu_floor=silu_floor,
                targets=chosen,
                coreml_target=coreml_target,
                progress=progress,
            )
        console.write_json(manifest, json)
        found = quality.quality(out)
    if str(json) != "-":
        console.out.print(_summary(manifest))
        quality.show(found)
        console.out.print(f"Bundle: {out}", markup=False, highlight=False, soft_wrap=True)


def _convert_named(
    network: str,
    out: Path,
    checkpoint: Path | None,
    inputs: Sequence[str],
    outputs: Sequence[str] | None,
    calibration: str | None,
    targets: Sequence[str] | None,
    coreml_target: str,
    progress: Progress,
) -> Manifest:
    """Convert a whole network as the command line names it."""
    from litehrnet_stage2.apps.convert_network import convert_network
    from litehrnet_stage2.apps.network_source import load_converted_network, load_inputs, parse_inputs
    from litehrnet_stage2.reference.network import QuantizedNetwork
    from litehrnet_stage2.reference.network_checkpoint import tuned_sqnr_db

    declared = parse_inputs(inputs)
    if calibration is None:
        raise InputError("a whole network needs examples of its inputs: give --calibration FILE.npy")
    arrays = load_inputs(calibration, declared)
    progress(f"importing {network}")
    module = load_converted_network(
        network, checkpoint, declared, arrays, output_names=None if outputs is None else tuple(outputs)
    )
    if isinstance(module, QuantizedNetwork) and checkpoint and (sqnr_db := tuned_sqnr_db(checkpoint)):
        ratios = ", ".join(f"{value:.1f} dB in {name}" for name, value in sqnr_db.items())
        progress(f"fine-tuned to {ratios} against its float network")
    return convert_network(
        module,
        out,
        *arrays,
        input_names=tuple(one.name for one in declared),
        output_names=None if outputs is None else tuple(outputs),
        targets=targets,
        coreml_target=coreml_target,
        progress=progress,
    )


def convert_to_bundle(
    out: Path,
    *,
    checkpoint: Path | None = None,
    calibration: str | Path | None = None,
    targets: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    silu_floor: float | None = None,
    coreml_target: str = "iOS17",
    progress: Progress = silent,
) -> Manifest:
    """Load, calibrate if need be, freeze, and write the bundle; the arguments are the options of `stage2 convert`.

    Without `targets` the default ones are made, less those that have no exact form of this network.

    Raises:
        Stage2Error: what was given cannot be converted, or not be put at `out`; the message says what to do.
        OSError: a file cannot be read or written.
    """
    progress("loading torch and the checkpoint")
    import torch

    from litehrnet_stage2.apps import example
    from litehrnet_stage2.apps.qat.ranges import raise_floors
    from litehrnet_stage2.converters.replacement import check_replaceable
    from litehrnet_stage2.converters.write_bundle import write_bundle
    from litehrnet_stage2.reference.checkpoint import load_checkpoint, read_card
    from litehrnet_stage2.reference.contract.artifacts import check_targets
    from litehrnet_stage2.reference.freeze import freeze
    from litehrnet_stage2.reference.input_statistics import input_statistics, unusual_inputs
    from litehrnet_stage2.reference.qat import QATStage2
    from litehrnet_stage2.reference.quantizers import Mode, set_mode

    optional = DEFAULT_TARGETS if targets is None else ()
    targets = DEFAULT_TARGETS if targets is None else targets
    check_targets(targets)
    check_replaceable(out)
    path = example.checkpoint() if checkpoint is None else checkpoint
    model = load_checkpoint(path)
    features = _features(model, path, calibration, size)
    model.config.check_features(features.shape)
    details: dict[str, Any] = {}
    if isinstance(model, QATStage2):
        if silu_floor is not None:
            raise InputError(f"{path} has its ranges already: leave out --silu-floor, or give the float checkpoint")
        qat = model
        if (sqnr_db := read_card(path).sqnr_db) is not None:
            progress(f"fine-tuned to {sqnr_db[0]:.1f} dB in Y1 and {sqnr_db[1]:.1f} dB in Y2 against its float network")
    else:
        statistics = input_statistics(model, torch.from_numpy(features))
        details["calibration_statistics"] = [dataclasses.asdict(found) for found in statistics]
        if warning := unusual_inputs(statistics):
            console.warn(warning)
        progress(f"calibrating on {len(features)} inputs")
        qat = QATStage2.from_float(model).calibrate(torch.from_numpy(features))
        if silu_floor is not None:
            raise_floors(qat, silu_floor)
    inputs = _of_size(features[:GOLDEN_IMAGES], size)
    progress(f"building for features of {inputs.shape[2]}x{inputs.shape[3]}")
    progress("freezing: proving that every runtime adds alike")
    function, proof = freeze(qat, inputs.shape)
    set_mode(qat, Mode.FLOAT)

    @torch.no_grad()
    def float_network(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        y1, y2 = qat(torch.from_numpy(x))
        return y1.numpy(), y2.numpy()

    return write_bundle(
        function,
        proof,
        inputs,
        out,
        float_network=float_network,
        targets=targets,
        optional=optional,
        coreml_target=coreml_target,
        details=details,
        progress=progress,
    )


def _features(
    model: Stage2, checkpoint: Path, calibration: str | Path | None, size: tuple[int, int] | None
) -> NDArray[np.float32]:
    """Features to set ranges from, and of which the first become golden inputs: given, kept, or the example's.

    Raises:
        InputError: there are none that fit the checkpoint; the message says what to give.
    """
    import numpy as np
    import torch

    from litehrnet_stage2.apps import example
    from litehrnet_stage2.apps.features_file import load_features
    from litehrnet_stage2.reference.qat import QATStage2
    from litehrnet_stage2.reference.quantizers import check_calibration

    channels = model.config.in_channels
    if isinstance(model, QATStage2) and not model.calibrated:
        raise InputError(
            f"{checkpoint} is a QATStage2 whose ranges were never set: call stage2.calibrate(features) on it, "
            "then save_checkpoint again"
        )
    if calibration is not None:
        features = load_features(calibration, channels, most=MOST_CALIBRATION_MAPS)
        check_calibration(f"the features of {calibration}", torch.from_numpy(features))
        return features
    if example.ships(checkpoint):
        return example.features(EXAMPLE_IMAGES)
    if isinstance(model, QATStage2) and model.examples is not None:
        kept: NDArray[np.float32] = model.examples.numpy()
        return kept
    if not isinstance(model, QATStage2):
        raise InputError(
            f"{checkpoint} is a float checkpoint, and its int8 ranges come from features of {channels} channels: "
            "give --calibration features.npy, recorded with capture_features(network, batches, Path('shards'))"
        )
    if (size := size or model.size) is None:
        raise InputError(
            f"{checkpoint} has kept no features and no size, so the size to build for is not known: give --size HxW, "
            "the height and width of the features that enter your Stage2, or --calibration features.npy"
        )
    noise = np.random.default_rng(0).uniform(float(model.input.low), float(model.input.high), (1, channels, *size))
    return noise.astype(np.float32)


def _of_size(features: NDArray[np.float32], size: tuple[int, int] | None) -> NDArray[np.float32]:
    """The features cut, or mirrored at their edges, to another height and width."""
    import numpy as np

    height, width = features.shape[2:] if size is None else size
    missing = [(0, max(0, due - has)) for due, has in zip((height, width), features.shape[2:], strict=True)]
    return np.pad(features, [(0, 0), (0, 0), *missing], mode="symmetric")[:, :, :height, :width]


def _summary(manifest: Manifest) -> Table:
    table = console.table("artifact", "file", "size", "in int8", "in float", "delegates", title="Converted")
    for name, artifact in manifest.artifacts.items():
        coverage, file = manifest.coverage[name], artifact.file
        size = sum(e.size_bytes for path, e in manifest.files.items() if path == file or path.startswith(f"{file}/"))
        table.add_row(
            name,
            file,
            f"{size / 1024:.0f} KiB",
            str(sum(coverage.int8.values())),
            ", ".join(f"{count} {kind}" for kind, count in coverage.floating.items()) or "none",
            str(coverage.partitions),
        )
    return table
