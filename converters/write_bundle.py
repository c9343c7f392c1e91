"""The bundle: a folder with every artifact, the golden codes and a manifest, whole or not there at all."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.converters.coverage import Coverage
from litehrnet_stage2.converters.replacement import replacing
from litehrnet_stage2.converters.targets import Deployment, load_converter
from litehrnet_stage2.reference import golden, integer_function
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEFAULT_TARGETS, Artifact, check_targets
from litehrnet_stage2.reference.contract.manifest import (
    FUNCTION,
    GOLDEN,
    SCHEMA_VERSION,
    ArtifactEntry,
    FileEntry,
    Manifest,
    border_specs,
    golden_file,
)
from litehrnet_stage2.reference.freeze import Proof
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.known_files import remember
from litehrnet_stage2.reference.lowering import LoweringError

FloatOutputs: TypeAlias = Callable[..., Sequence[NDArray[np.float32]]]
"""Each input float32 `[N, C, H, W]` to each output, float32, in order: the network before quantisation."""

GoldenInputs: TypeAlias = NDArray[Any] | Sequence[NDArray[Any]]
"""Of each input float32, or uint8 where it is pixels, `[N, C, H, W]`; one array where there is one input."""

_MADE_WITH = dict.fromkeys(package for row in ARTIFACTS.values() for package in row.made_with)
TOOLS = ("litehrnet-stage2", *_MADE_WITH, "onnxruntime", "numpy")
"""The packages whose versions a bundle names, as they are installed."""


def write_bundle(
    function: IntegerFunction,
    proof: Proof,
    inputs: GoldenInputs,
    out: Path,
    *,
    float_network: FloatOutputs,
    targets: Iterable[str] = DEFAULT_TARGETS,
    optional: Collection[str] = (),
    coreml_target: str = "iOS17",
    details: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write the folder `out`, replacing a bundle that is there.

    Golden inputs are `inputs`, snapped to the input grid, and `stress_inputs`; of the former the bundle also has what
    `float_network` makes of them, to judge fidelity by. The artifacts take one image at a time. Targets that are
    `optional` are left out, and `progress` is told why, where they have no exact form of some operator. `details` are
    plain data that the manifest is to hold.

    Raises:
        BundleError: what is at `out` cannot be replaced (see `check_replaceable`).
        ValueError: an unknown target, or inputs of a wrong shape.
        CoverageError: a converter left an operator in float.
    """
    targets = list(dict.fromkeys(targets))
    check_targets(targets)
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    codes = [_codes(x, function.quantization[name]) for name, x in zip(function.inputs, arrays, strict=True)]
    function.check_inputs(*codes)
    deployment = Deployment(coreml_target=coreml_target)
    with replacing(out) as folder:
        manifest = _fill(
            folder, function, proof, codes, float_network, deployment, targets, optional, details or {}, progress
        )
    return manifest


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
    given: Sequence[NDArray[np.int8]],
    float_network: FloatOutputs,
    deployment: Deployment,
    targets: list[str],
    optional: Collection[str],
    details: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Manifest:
    coverage: dict[str, Coverage] = {}
    for name in targets:
        progress(f"converting to {name}")
        artifact = ARTIFACTS[name]
        try:
            coverage[name] = load_converter(artifact)(function, folder / artifact.file(function.name), deployment)
        except LoweringError as error:
            if name not in optional:
                raise
            progress(f"leaving out {name}: {error}")
    progress("evaluating the golden codes")
    integer_function.save(function, folder / FUNCTION)
    inputs, outputs = border_specs(function)
    quantization = [function.quantization[name] for name in function.inputs]
    codes = [
        np.concatenate([images, stress_inputs(q, images.shape[1:])])
        for images, q in zip(given, quantization, strict=True)
    ]
    due = golden.evaluate(function, *codes)
    real = (q.dequantize(images) for images, q in zip(given, quantization, strict=True))
    _write_golden(folder, dict(zip(function.inputs, codes, strict=True)), due, float_network(*real))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=function.name,
        inputs=inputs,
        outputs=outputs,
        artifacts={name: _entry(ARTIFACTS[name], function.name) for name in coverage},
        coverage=coverage,
        proof=proof,
        versions=_versions(),
        files={
            path.relative_to(folder).as_posix(): FileEntry.of(path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        golden_sha256=golden.codes_sha256(*due.values()),
        details=details,
    )
    manifest.write(folder)
    for name in (FUNCTION, *(entry.file for entry in manifest.artifacts.values())):
        remember(manifest.sha256(name))
    return manifest


def _write_golden(
    folder: Path,
    inputs: Mapping[str, NDArray[np.int8]],
    outputs: Mapping[str, NDArray[np.int8]],
    floats: Sequence[NDArray[np.float32]],
) -> None:
    """Write `golden.npz`, and its codes once more as raw bytes, for apps that check themselves."""
    arrays: dict[str, NDArray[Any]] = {
        **{f"input/{name}": images for name, images in inputs.items()},
        **{f"output/{name}": y for name, y in outputs.items()},
        **{f"float/{name}": y.astype(np.float16) for name, y in zip(outputs, floats, strict=True)},
    }
    with (folder / GOLDEN).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    raw = {golden_file("input", i): images for i, images in enumerate(inputs.values())}
    raw |= {golden_file("output", i): y for i, y in enumerate(outputs.values())}
    for name, codes in raw.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(codes.tobytes())


def _codes(x: NDArray[Any], q: Quantization) -> NDArray[np.int8]:
    """The codes of real values, or of pixels."""
    return (x ^ np.uint8(128)).view(np.int8) if x.dtype == np.uint8 else q.quantize(x)


def _entry(row: Artifact, function: str) -> ArtifactEntry:
    return ArtifactEntry(
        file=row.file(function), library=row.library, border=row.border, exact=row.exact, settings=row.settings
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for tool in TOOLS:
        try:
            versions[tool] = metadata.version(tool)
        except metadata.PackageNotFoundError:
            continue  # a target that was not asked for
    return versions
