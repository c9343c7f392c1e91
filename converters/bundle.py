"""The bundle: a folder with every artifact, the golden codes and a manifest, whole or not there at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.targets import Deployment, load_converter
from litehrnet_stage2.reference import golden, integer_function
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEFAULT_TARGETS, check_targets
from litehrnet_stage2.reference.freeze import Proof
from litehrnet_stage2.reference.integer_function import INPUT, OUTPUTS, IntegerFunction, Quantization
from litehrnet_stage2.reference.manifest import (
    FUNCTION,
    GOLDEN,
    SCHEMA_VERSION,
    BundleError,
    FileEntry,
    Manifest,
    TensorSpec,
    holds_bundle,
)

FloatNetwork: TypeAlias = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Features float32 `[N, in_channels, H, W]` to float32 `Y1`, `Y2`: the network before quantisation."""

NAME = "stage2"
"""Of the function: its files are called after it."""

TOOLS = ("litehrnet-stage2", "torch", "executorch", "coremltools", "onnx", "onnxruntime", "numpy")


def write_bundle(
    function: IntegerFunction,
    proof: Proof,
    features: NDArray[np.float32],
    out: Path,
    *,
    float_network: FloatNetwork,
    targets: Iterable[str] = DEFAULT_TARGETS,
    coreml_target: str = "iOS17",
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write the folder `out`, replacing a bundle that is there.

    Shapes: `features` float32 `[N, in_channels, H, W]`; the artifacts take one image of that height and
    width. Inputs of the golden file are these, snapped to the input grid, and `stress_inputs`; of the
    former it also has what `float_network` makes of them, to judge fidelity by.

    Raises:
        BundleError: `out` exists and is no bundle.
        ValueError: an unknown target, or features of a wrong shape.
        CoverageError: a converter left an operator in float.
    """
    targets = list(dict.fromkeys(targets))
    check_targets(targets)
    function.config.check_features(features.shape)
    deployment = Deployment(height=features.shape[2], width=features.shape[3], coreml_target=coreml_target)
    check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(out)) from error
    try:
        manifest = _fill(folder, function, proof, features, float_network, deployment, targets, progress)
        folder.chmod(0o755)
        _replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def check_replaceable(out: Path) -> None:
    """Check that writing a bundle at `out` destroys nothing else.

    Raises:
        BundleError: something is there that is neither a bundle nor an empty folder.
    """
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not holds_bundle(out):
        raise BundleError(f"{out} exists and is no bundle: give --out a new folder, or one that holds a bundle")


def stress_inputs(q: Quantization, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Codes that photographs do not reach: zero, both saturations, the highest frequency, noise.

    Shapes: `shape` is `(C, H, W)` -> int8 `[5, C, H, W]`.
    """
    checkerboard = np.indices(shape).sum(0) % 2 == 0
    noise = np.random.default_rng(0).integers(-128, 128, shape)
    planes = (
        np.full(shape, q.zero_point),
        np.full(shape, -128),
        np.full(shape, 127),
        np.where(checkerboard, 127, -128),
        noise,
    )
    return np.stack(planes).astype(np.int8)


def _fill(
    folder: Path,
    function: IntegerFunction,
    proof: Proof,
    features: NDArray[np.float32],
    float_network: FloatNetwork,
    deployment: Deployment,
    targets: list[str],
    progress: Callable[[str], None],
) -> Manifest:
    coverage: dict[str, Coverage] = {}
    for name in targets:
        progress(f"converting to {name}")
        artifact = ARTIFACTS[name]
        coverage[name] = load_converter(artifact)(function, folder / artifact.file(NAME), deployment)
    progress("evaluating the golden codes")
    integer_function.save(function, folder / FUNCTION)
    q = function.input_quantization
    codes = np.concatenate([q.quantize(features), stress_inputs(q, features.shape[1:])])
    outputs = golden.evaluate(function, codes)
    x = q.dequantize(codes)
    ideal = {
        f"float_{name}": y.astype(np.float16)
        for name, y in zip(OUTPUTS, float_network(x[: len(features)]), strict=True)
    }
    with (folder / GOLDEN).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, x=x, **outputs, **ideal)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        config=dataclasses.asdict(function.config),
        input=_spec(INPUT, features.shape[1:], q),
        outputs=tuple(  # type: ignore[arg-type]  # there are two
            _spec(name, outputs[name].shape[1:], quantization)
            for name, quantization in function.output_quantization.items()
        ),
        artifacts={name: ARTIFACTS[name].file(NAME) for name in targets},
        coverage={name: dataclasses.asdict(entry) for name, entry in coverage.items()},
        proof=dataclasses.asdict(proof),
        versions=_versions(),
        files={
            path.relative_to(folder).as_posix(): FileEntry.of(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        golden_sha256=golden.codes_sha256(*outputs.values()),
    )
    manifest.write(folder)
    return manifest


def _spec(name: str, shape: tuple[int, ...], q: Quantization) -> TensorSpec:
    channels, height, width = shape
    return TensorSpec(name=name, shape=(1, channels, height, width), scale=float(q.scale), zero_point=q.zero_point)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue  # a target that was not asked for
    return versions


def _replace(folder: Path, out: Path) -> None:
    """Move `folder` to `out`; what was there comes back if that fails. Of runs that end at once the last one stays."""
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        for attempt in itertools.count():
            check_replaceable(out)  # once more: minutes have passed
            kept = old / str(attempt)
            with contextlib.suppress(FileNotFoundError):
                out.rename(kept)
            try:
                folder.rename(out)
                return
            except BaseException as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another run was faster by a hair; its bundle is the older one now
                if kept.exists():
                    kept.rename(out)
                raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
