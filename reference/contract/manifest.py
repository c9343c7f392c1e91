"""The manifest: what a bundle says of itself, in one JSON file, written and read here alone.

Beside `manifest.json` lies `manifest.sha256`, one line as `sha256sum` writes it, so that the manifest is covered by a
hash as every other file is by an entry in the manifest: `sha256sum -c manifest.sha256` checks it anywhere.

The schema version is `major.minor`. A reader takes every minor version of its major and ignores keys that it does not
know; another major is refused. `manifest.schema.json` describes it for other programs. Every field is checked when the
file is read: nothing after `Manifest.read` can meet a wrong type, a number that is not finite, or a name that would
leave the folder or play with a terminal.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import Border
from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse
from litehrnet_stage2.reference.contract.coverage_contract import Coverage
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization, QuantizedTensor
from litehrnet_stage2.reference.quantization import PIXELS

SCHEMA_VERSION = "2.1"
FILE_NAME, HASH_NAME = "manifest.json", "manifest.sha256"
FUNCTION, GOLDEN = "function.npz", "golden.npz"
MOST_BYTES = 4 << 20  # of a manifest
MOST_ELEMENTS = 2**31  # of a tensor

_SHA256 = re.compile(r"[0-9a-f]{64}")


class BundleError(InputError):
    """A bundle is not what its manifest says, or not one at all."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: of the tensor at the artifacts' border.
        shape: `[1, C, H, W]`.
        scale: of its int8 codes, a float32.
        zero_point: of its int8 codes, -128 to 127.
        kind: `float` for real values; `pixels` for uint8 `[1, C, H, W]`, whose codes are 128 lower.
    """

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    kind: Literal["float", "pixels"] = "float"

    def __post_init__(self) -> None:
        check_printable([self.name])
        if len(self.shape) != 4 or self.shape[0] != 1 or min(self.shape) < 1 or math.prod(self.shape) >= MOST_ELEMENTS:
            raise InputError(f"its shape is {list(self.shape)}, not [1, C, H, W] of fewer than 2^31 elements")
        with np.errstate(all="ignore"):
            if not (self.scale > 0 and float(np.float32(self.scale)) == self.scale):
                raise InputError(f"its scale is {self.scale!r}, not a positive float32")
        if not -128 <= self.zero_point <= 127:
            raise InputError(f"its zero point is {self.zero_point}, not an int8")
        if self.kind == "pixels" and (self.scale, self.zero_point) != (float(np.float32(1 / 255)), -128):
            raise InputError("it takes pixels, but its scale is not 1/255 or its zero point not -128")

    @property
    def quantization(self) -> Quantization:
        """What its codes mean."""
        return Quantization(np.float32(self.scale), self.zero_point)


Specs: TypeAlias = tuple[TensorSpec, ...]


def golden_file(kind: Literal["input", "output"], position: int) -> str:
    """The path of an input's or output's raw golden codes; `position` counts from 0 in the manifest's order.

    It has the position, because the name of a tensor may not be one that a file can have.
    """
    return f"golden/{kind}-{position}.i8"


def border_specs(function: IntegerFunction) -> tuple[Specs, Specs]:
    """The inputs and outputs of a function."""

    def spec(name: str, tensor: QuantizedTensor) -> TensorSpec:
        q = tensor.quantization
        kind: Literal["float", "pixels"] = "pixels" if name in function.inputs and q == PIXELS else "float"
        return TensorSpec(name=name, shape=tensor.shape, scale=float(q.scale), zero_point=q.zero_point, kind=kind)

    return (
        tuple(spec(name, function.tensors[name]) for name in function.inputs),
        tuple(spec(name, function.tensors[tensor]) for name, tensor in function.outputs.items()),
    )


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file's content: its SHA-256 and its size in bytes."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or self.size_bytes < 0:
            raise InputError("it has no SHA-256 or no size")

    @classmethod
    def of(cls, content: bytes) -> FileEntry:
        """The entry of some content."""
        return cls(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@dataclass(frozen=True, kw_only=True)
class ArtifactEntry:
    """An artifact: its file (or folder, of a `.mlpackage`) and how it is fed; see `contract.artifacts.Artifact`."""

    file: str
    library: str
    border: Border
    exact: bool
    settings: Mapping[str, str]

    def __post_init__(self) -> None:
        check_inside(self.file)
        check_printable([self.library, *self.settings, *self.settings.values()])


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was checked when the function was frozen.

    Attributes:
        nodes: how many nodes of each kind were proved.
        rules: the runtimes' rules of addition that agree on all 65,536 code pairs of each addition.
        nudges: relative change of each scale that had to move for it, by tensor.
        raised: factor of each scale that was raised to what the runtimes' kernels take, by tensor.
        largest_accumulator: the largest magnitude that a sum can reach, in codes.
    """

    nodes: Mapping[str, int]
    rules: tuple[str, ...]
    nudges: Mapping[str, float]
    largest_accumulator: int
    raised: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_printable([*self.nodes, *self.rules, *self.nudges, *self.raised])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A bundle's contents.

    Attributes:
        schema_version: of the file, `major.minor`.
        name: of the function; its artifacts are called after it.
        inputs, outputs: in the order in which every artifact has them.
        artifacts: by the name that `--targets` takes.
        coverage: the coverage contract of each artifact, by the same names.
        proof: what freezing checked.
        versions: of the tools that made it.
        files: every file but `manifest.json` and its hash, by its path in the bundle.
        golden_sha256: of the golden codes: the bytes of each output, in order.
        details: whatever else its maker wants to say.
    """

    schema_version: str
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    artifacts: Mapping[str, ArtifactEntry]
    coverage: Mapping[str, Coverage]
    proof: Proof
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry]
    golden_sha256: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [spec.name for spec in (*self.inputs, *self.outputs)]
        if not (self.inputs and self.outputs) or len(set(names)) < len(names):
            raise InputError(f"its inputs and outputs (={names}) are not one or more, of different names")
        check_printable([self.name, *self.artifacts, *self.coverage, *self.versions, *self.versions.values()])
        for name in self.files:
            check_inside(name)
        if not _SHA256.fullmatch(self.golden_sha256):
            raise InputError("golden_sha256 is no SHA-256")
        if self.artifacts.keys() != self.coverage.keys():
            raise InputError("artifacts and coverage do not name the same artifacts")

    def sha256(self, name: str) -> str:
        """SHA-256 of an artifact; of one that is a folder, over a line `<sha256>  <path>` for each of its files."""
        if name in self.files:
            return self.files[name].sha256
        inside = sorted(file for file in self.files if file.startswith(f"{name}/"))
        lines = "".join(f"{self.files[file].sha256}  {file}\n" for file in inside)
        return hashlib.sha256(lines.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `manifest.json` and `manifest.sha256` into a folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")
        seal(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's `manifest.json`.

        Raises:
            BundleError: there is none, it was changed, is of another schema, or a field is not what it should be.
        """
        path = folder / FILE_NAME
        missing = f"{folder} is no bundle (it has no {FILE_NAME}): make one with `stage2 convert --out {folder}`"
        content = _read(path, missing)
        try:
            values = parse(content)
            version = values.get("schema_version") if isinstance(values, dict) else None
            if version == 1:
                raise BundleError(f"{folder} was made by an older version (schema 1): convert the checkpoint again")
            if not (isinstance(version, str) and re.fullmatch(r"2\.\d{1,6}", version)):
                raise BundleError(
                    f"{path} has schema version {version!a:.40}; this version reads {SCHEMA_VERSION}: "
                    "convert the checkpoint again, or install the version that made the bundle"
                )
            seal_path = folder / HASH_NAME
            line = _read(seal_path, f"{folder} has no {HASH_NAME}: it is incomplete, copy or convert it again")
            if line != _seal(content):
                raise BundleError(f"{path} is not what {HASH_NAME} says: one was changed, copy or convert it again")
            return decode(cls, values)
        except CodecError as error:
            raise BundleError(f"{path} is damaged ({error}): convert the checkpoint again") from error


def seal(folder: Path) -> None:
    """Write `manifest.sha256` for the `manifest.json` of a folder."""
    (folder / HASH_NAME).write_bytes(_seal((folder / FILE_NAME).read_bytes()))


def holds_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle of any schema version; files of other makers are called `manifest.json` too."""
    try:
        values = parse(read_regular(folder / FILE_NAME, most_bytes=MOST_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"schema_version", "golden_sha256"} <= values.keys()


def check_inside(name: str) -> None:
    """Check that a manifest's path stays inside of the bundle, on every system.

    Raises:
        BundleError: it is absolute, empty, climbs out, or holds what is no character of a name.
    """
    path = PurePosixPath(name)
    tidy = bool(path.parts) and path.as_posix() == name and name.isprintable()
    if not tidy or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise BundleError(
            f"{FILE_NAME} names the path {name!a:.200}, which is not inside of the bundle: it was tampered with"
        )


def check_printable(texts: Iterable[str]) -> None:
    """Check names that people are shown.

    Raises:
        ValueError: one is empty, longer than 200 letters, or holds a character that is not printed.
    """
    for text in texts:
        if not (text.isprintable() and 0 < len(text) <= 200):
            raise InputError(f"{text!a:.60} is no name: 1 to 200 letters that can be printed")


def _seal(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {FILE_NAME}\n".encode()


def _read(path: Path, missing: str) -> bytes:
    try:
        return read_regular(path, most_bytes=MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(missing) from error
    except InputError as error:
        raise BundleError(str(error)) from error
