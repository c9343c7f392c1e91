"""The commands `stage2 qat` and `stage2 qat-report`. Nothing heavy is imported until one of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litehrnet_stage2.apps import console, network_options
from litehrnet_stage2.reference.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from litehrnet_stage2.apps.qat.data import Source
    from litehrnet_stage2.apps.qat.fine_tune import QatSummary
    from litehrnet_stage2.apps.qat.qat_config import QatConfig
    from litehrnet_stage2.reference.network import QuantizedNetwork
    from litehrnet_stage2.reference.stage2 import Stage2

QAT_EPILOG = """Examples:

stage2 qat --features 'shards/*.npy' --teacher float.safetensors --out runs/qat

stage2 qat --task landmarks --out runs/qat --set steps=2000 --set task_weight=0.1

stage2 qat --task landmarks --whole --out runs/whole --set task_weight=0.1 --set answer_weight=10

stage2 qat --network my_package.model:make --checkpoint w.safetensors --input image=1x3x256x512:pixels
--features images.npy --out runs/own

stage2 qat --features 'shards/*.npy' --teacher float.safetensors --out runs/qat --resume

torchrun --nproc-per-node 2 -m litehrnet_stage2.apps.qat.command --features 'shards/*.npy'
--teacher float.safetensors --out runs/qat
"""


def register(app: typer.Typer) -> None:
    """Add both commands to `app`."""
    app.command("qat", epilog=QAT_EPILOG)(qat)
    app.command("qat-report")(qat_report)


def qat(
    out: Annotated[Path, typer.Option(help="Folder for weights, log, plot, summary and checkpoints.")],
    features: Annotated[
        str,
        typer.Option(
            help="Feature shards [N,32,64,128], or with --network its inputs, as declared: a .npy file, a folder of "
            "them or a quoted glob."
        ),
    ] = "",
    teacher: Annotated[
        Path | None,
        typer.Option(help="Float checkpoint (.safetensors). Default with --task landmarks: the shipped one."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of knobs; default: the values in qat.toml.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, any knob of the config; repeatable.")
    ] = None,
    task: Annotated[str, typer.Option(help="distillation or landmarks; short for --set task=...")] = "",
    network: network_options.NetworkOption = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="With --network, its float state dict (.safetensors). Default: the weights that it has."),
    ] = None,
    inputs: network_options.InputOptions = None,
    outputs: network_options.OutputOptions = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for rendered scenes; default: one that all runs share.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="With --task landmarks: tune the whole network, pixels to answer.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in OUT.")] = False,
    verbose: console.Verbose = False,
) -> None:
    """Fine-tune the int8 Stage2 or network towards its float form, on recorded features or on the landmark task.

    Ends with 0; with 1 if the run had to stop, its checkpoints whole; with 2 if it could not start.
    """
    from litehrnet_stage2.apps.qat.fine_tune import QatError, fine_tune
    from litehrnet_stage2.apps.qat.qat_config import read_config
    from litehrnet_stage2.apps.qat.ranks import join_ranks, leave_ranks

    with console.mistakes(verbose=verbose):
        ranks = join_ranks()
        try:
            knobs = read_config(config, [*(override or []), *([f"task={task}"] if task else [])])
            model: Stage2 | QuantizedNetwork
            source: Source
            trained: nn.Module | None = None
            if network is not None:
                if whole or teacher or knobs.task != "distillation":
                    raise InputError(
                        "--network is tuned towards its own float outputs: leave out --teacher, --whole and "
                        "--task landmarks; its weights are --checkpoint"
                    )
                from litehrnet_stage2.apps.qat.own_network import own_network

                model, source, trained = own_network(network, checkpoint, inputs or [], outputs, features, knobs)
            elif checkpoint or inputs or outputs:
                raise InputError(
                    "--checkpoint, --input and --output belong to a whole network: name it with --network MODULE:NAME"
                )
            elif whole:
                if knobs.task != "landmarks" or teacher or features:
                    raise InputError("--whole goes with --task landmarks alone: leave out --teacher and --features")
                model, source = _whole(knobs, cache)
            else:
                float_stage2 = _teacher(teacher, knobs)
                model, source = float_stage2, _source(knobs, float_stage2, features, cache)
            summary = fine_tune(
                model, source, knobs, out=out, resume=resume, ranks=ranks, console=console.err, trained=trained
            )
        except QatError as stopped:
            console.print_error(str(stopped))
            raise typer.Exit(1) from stopped
        finally:
            leave_ranks()
    if summary is not None:
        _tell(summary, out)


def qat_report(
    out: Annotated[Path, typer.Option(help="JSON file; a Markdown table is written beside it.")] = Path(
        "benchmarks/qat.json"
    ),
    weights: Annotated[Path | None, typer.Option(help="Folder of weights; default: the shipped ones.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for rendered scenes; default: one that all runs share.")
    ] = None,
    scenes: Annotated[int, typer.Option(help="Held-out scenes to evaluate.", min=1)] = 500,
    runtimes: Annotated[str, typer.Option(help="Also evaluate in these, with commas; '' for none.")] = (
        "onnxruntime,executorch,litert"
    ),
    verbose: console.Verbose = False,
) -> None:
    """Compare float, post-training int8 and tuned int8 on the landmark task, by the golden evaluator."""
    from litehrnet_stage2.apps.landmarks.pool import scene_cache
    from litehrnet_stage2.apps.landmarks.task_report import RUNTIME_TARGETS, compare, to_markdown, write_report
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED

    with console.mistakes(verbose=verbose):
        names = [name for name in runtimes.split(",") if name]
        if unknown := sorted(set(names) - set(RUNTIME_TARGETS)):
            raise InputError(f"unknown runtime {unknown[0]!r}: accepted are {', '.join(RUNTIME_TARGETS)}")
        report = compare(
            weights or SHIPPED, cache=cache or scene_cache(), scenes=scenes, runtimes=names, say=console.err.print
        )
        write_report(report, out)
    console.out.print(to_markdown(report), markup=False, highlight=False, soft_wrap=True)


def _teacher(path: Path | None, knobs: QatConfig) -> Stage2:
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED
    from litehrnet_stage2.reference.checkpoint import load_checkpoint
    from litehrnet_stage2.reference.qat import QATStage2

    if path is None:
        if knobs.task == "distillation":
            raise InputError("--teacher is missing: name the float checkpoint (.safetensors) to match")
        path = SHIPPED / "float.safetensors"
    model = load_checkpoint(path)
    if isinstance(model, QATStage2):
        raise InputError(f"{path} is a quantisation-aware checkpoint: the teacher must be a float one")
    return model


def _source(knobs: QatConfig, teacher: Stage2, features: str, cache: Path | None) -> Source:
    from litehrnet_stage2.apps.features_file import find_features
    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, load_stem_and_heads
    from litehrnet_stage2.apps.qat.data import LandmarkSource, ShardSource
    from litehrnet_stage2.apps.qat.features import FeatureShards

    if knobs.task == "distillation":
        if not features:
            raise InputError("--features is missing: name the .npy shards, as `capture_features` writes them")
        return ShardSource(FeatureShards(find_features(features), channels=teacher.config.in_channels), knobs)
    if features:
        raise InputError(f"--features (={features!r}) goes with task 'distillation', but the task is {knobs.task!r}")
    stem, heads = load_stem_and_heads(SHIPPED / "landmarks.safetensors")
    return LandmarkSource.rendered(stem, heads, knobs, cache=cache, say=console.err.print)


def _whole(knobs: QatConfig, cache: Path | None) -> tuple[QuantizedNetwork, Source]:
    """The landmark network from pixels to answer, and scenes for it."""
    from torch import nn

    from litehrnet_stage2.apps.landmarks.weight_files import SHIPPED, quantized_network
    from litehrnet_stage2.apps.qat.data import LandmarkSource, WholeNetwork

    source = LandmarkSource.rendered(nn.Identity(), WholeNetwork(), knobs, cache=cache, say=console.err.print)
    return quantized_network(SHIPPED), source


def _tell(summary: QatSummary, out: Path) -> None:
    before, after = summary.post_training, summary.tuned
    if not summary.won:
        console.warn(
            "fine-tuning did not win on held-out maps: its loss is "
            f"{after.loss:.4g}, that of calibration alone {before.loss:.4g}. Convert the float checkpoint instead, or "
            "tune longer or on more data."
        )
    ratios = ", ".join(f"{name} {before.sqnr_db[name]:.2f} -> {value:.2f} dB" for name, value in after.sqnr_db.items())
    console.out.print(
        f"SQNR on held-out maps, calibrated -> tuned: {ratios}; kept: the weights after {summary.best_step} of "
        f"{summary.steps} steps, in {out / 'qat.safetensors'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(qat)
