"""`stage2 convert`: a checkpoint becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litehrnet_stage2.apps import console, quality
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEFAULT_TARGETS
from litehrnet_stage2.reference.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from litehrnet_stage2.reference.manifest import Manifest

CALIBRATION_IMAGES = 16
GOLDEN_IMAGES = 3


def convert(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle; an older bundle is replaced.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A .safetensors checkpoint, float or fine-tuned. Default: the weights that ship."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Features float32 [N,32,H,W] in a .npy: they set the ranges of a float checkpoint, and the "
            "first few become golden inputs. Default: photographs through the example stem."
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
    """Convert a Stage2 to ExecuTorch, ONNX and Core ML artifacts that compute one integer function.

    A float checkpoint is calibrated and quantised; a fine-tuned one (stage2 qat) is taken as it is.
    Every addition and SiLU is proved equal in all runtimes, or the conversion fails.

    Examples:

        stage2 convert --out bundle

        stage2 convert --checkpoint mine.safetensors --calibration features.npy --out bundle
    """
    with console.working(verbose=verbose) as progress:
        manifest = convert_to_bundle(
            out,
            checkpoint=checkpoint,
            calibration=calibration,
            targets=[name.strip() for name in targets.split(",") if name.strip()],
            coreml_target=coreml_target,
            progress=progress,
        )
        console.write_json(manifest, json)
        found = quality.quality(out)
    if str(json) != "-":
        console.out.print(_summary(manifest))
        quality.show(found)
        console.out.print(f"Bundle: {out}", markup=False, highlight=False, soft_wrap=True)


def convert_to_bundle(
    out: Path,
    *,
    checkpoint: Path | None,
    calibration: Path | None,
    targets: list[str],
    coreml_target: str = "iOS17",
    progress: console.Progress,
) -> Manifest:
    """Load, calibrate if need be, freeze, and write the bundle."""
    progress("loading torch and the checkpoint")
    import torch

    from litehrnet_stage2.apps import example, features_file
    from litehrnet_stage2.converters.bundle import write_bundle
    from litehrnet_stage2.converters.replacement import check_replaceable
    from litehrnet_stage2.reference.checkpoint import load_checkpoint
    from litehrnet_stage2.reference.contract.artifacts import check_targets
    from litehrnet_stage2.reference.freeze import freeze
    from litehrnet_stage2.reference.qat import QATStage2
    from litehrnet_stage2.reference.quantizers import Mode, set_mode

    check_targets(targets)
    check_replaceable(out)
    model = load_checkpoint(example.checkpoint() if checkpoint is None else checkpoint)
    if calibration is None:
        if model.config.in_channels != example.CHANNELS:
            raise InputError(
                f"the checkpoint takes features of {model.config.in_channels} channels, and the photographs that ship "
                f"become features of {example.CHANNELS}: give features of your own with --calibration"
            )
        features = example.features(CALIBRATION_IMAGES)
    else:
        features = features_file.load_features(calibration, model.config.in_channels)
    model.config.check_features(features.shape)
    qat = model if isinstance(model, QATStage2) else None
    if qat is None:
        progress(f"calibrating on {len(features)} inputs")
        qat = QATStage2.from_float(model).calibrate(torch.from_numpy(features))
    progress("freezing: proving that every runtime adds alike")
    function, proof = freeze(qat, features.shape)
    set_mode(qat, Mode.FLOAT)

    @torch.no_grad()
    def float_network(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        y1, y2 = qat(torch.from_numpy(x))
        return y1.numpy(), y2.numpy()

    return write_bundle(
        function,
        proof,
        features[:GOLDEN_IMAGES],
        out,
        float_network=float_network,
        targets=targets,
        coreml_target=coreml_target,
        progress=progress,
    )


def _summary(manifest: Manifest) -> Table:
    table = console.table(
        "artifact", "file", "size", "int8 operators", "float operators", "delegates", title="Converted"
    )
    for name, file in manifest.artifacts.items():
        coverage = manifest.coverage[name]
        size = sum(e.size_bytes for path, e in manifest.files.items() if path == file or path.startswith(f"{file}/"))
        table.add_row(
            name,
            file,
            f"{size / 1024:.0f} KiB",
            str(sum(coverage["int8"].values())),
            ", ".join(f"{count} {kind}" for kind, count in coverage["floating"].items()) or "none",
            str(coverage["partitions"]),
        )
    return table
