"""What a bundle says of itself: one JSON file, read and written here alone (standard library only)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular

SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"
MOST_BYTES = 4 << 20  # of a manifest
FUNCTION = "function.npz"
GOLDEN = "golden.npz"


class BundleError(InputError):
    """A bundle is not what its manifest says, or not one at all."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: float32 `shape` (batch first), and the quantisation of its int8 codes."""

    name: str
    shape: tuple[int, int, int, int]
    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file's content: its SHA-256 and its size in bytes."""

    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, content: bytes) -> FileEntry:
        """The entry of some content."""
        return cls(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A bundle's contents.

    Attributes:
        schema_version: of this file.
        config: the fields of `Stage2Config`.
        input: the features.
        outputs: `y1` and `y2`.
        artifacts: path of each artifact by the converter's name; a path may be a folder (`.mlpackage`).
        coverage: the coverage contract of each artifact, by the same names.
        proof: what freezing checked.
        versions: of the tools that made it.
        files: every file but this one, by its path in the bundle.
        golden_sha256: of the golden codes: the bytes of `y1`, then of `y2`.
    """

    schema_version: int
    config: Mapping[str, Any]
    input: TensorSpec
    outputs: tuple[TensorSpec, TensorSpec]
    artifacts: Mapping[str, str]
    coverage: Mapping[str, Any]
    proof: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, FileEntry]
    golden_sha256: str

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into a folder."""
        text = json.dumps(dataclasses.asdict(self), indent=2) + "\n"
        (folder / FILE_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's `manifest.json`.

        Raises:
            BundleError: there is none, it is damaged, of another schema, or names a path outside of the folder.
        """
        path = folder / FILE_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BundleError(
                f"{folder} is no bundle (it has no {FILE_NAME}): make one with `stage2 convert --out {folder}`"
            ) from error
        except ValueError as error:
            raise BundleError(f"{path} is damaged ({error}): convert the checkpoint again") from error
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {version!r}; this version reads {SCHEMA_VERSION}: "
                "convert the checkpoint again, or install the version that made the bundle"
            )
        try:
            manifest = cls(
                **{
                    **values,
                    "input": _tensor(values["input"]),
                    "outputs": tuple(_tensor(output) for output in values["outputs"]),
                    "files": {name: _file(entry) for name, entry in values["files"].items()},
                }
            )
            names = (*manifest.files, *manifest.artifacts.values())
            if len(manifest.outputs) != 2:
                raise TypeError(f"{len(manifest.outputs)} outputs instead of y1 and y2")
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{path} is damaged ({error!r}): convert the checkpoint again") from error
        for name in names:
            check_inside(name)
        return manifest


def holds_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle of any schema version; files of other makers are called `manifest.json` too."""
    try:
        values = json.loads(read_regular(folder / FILE_NAME, most_bytes=MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"schema_version", "golden_sha256"} <= values.keys()


def check_inside(name: str) -> None:
    """Check that a manifest's path stays inside of the bundle.

    Raises:
        BundleError: it is absolute, empty, or climbs out.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise BundleError(
            f"{FILE_NAME} names the path {name!r}, which is not inside of the bundle: it was tampered with"
        )


def _tensor(values: Mapping[str, Any]) -> TensorSpec:
    spec = TensorSpec(**{**values, "shape": tuple(values["shape"])})
    sizes = len(spec.shape) == 4 and all(type(size) is int and size > 0 for size in spec.shape)
    if not (sizes and type(spec.scale) is float and spec.scale > 0 and type(spec.zero_point) is int):
        raise TypeError(f"{spec} is no tensor")
    return spec


def _file(values: Mapping[str, Any]) -> FileEntry:
    entry = FileEntry(**values)
    if not (type(entry.sha256) is str and type(entry.size_bytes) is int):
        raise TypeError(f"{entry} is no file")
    return entry
