"""Reading a bundle: nothing in it is trusted before its hash was checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import integer_function
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.manifest import FUNCTION, GOLDEN, BundleError, FileEntry, Manifest


def is_litter(name: str) -> bool:
    """Whether a file is what macOS leaves in folders that it copies."""
    return name == ".DS_Store" or name.startswith("._")


def _nothing() -> NDArray[np.float16]:
    return np.zeros((0, 0, 0, 0), np.float16)


@dataclass(frozen=True)
class Golden:
    """Inputs and the codes that every runtime has to give for them.

    Attributes:
        x: float32 `[N, in_channels, H, W]`, on the input grid.
        y1: int8 `[N, C1, H, W]`.
        y2: int8 `[N, C2, H/2, W/2]`.
        float_y1, float_y2: float16, what the network gave before quantisation for the first inputs, the
            photographs; empty where it is not known.
    """

    x: NDArray[np.float32]
    y1: NDArray[np.int8]
    y2: NDArray[np.int8]
    float_y1: NDArray[np.float16] = field(default_factory=_nothing)
    float_y2: NDArray[np.float16] = field(default_factory=_nothing)


@dataclass(frozen=True)
class Bundle:
    """A folder that `stage2 convert` made."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read the manifest; the files are checked as they are read.

        Raises:
            BundleError: not a bundle, damaged, or of an unknown schema version.
        """
        return cls(folder, Manifest.read(folder))

    def read(self, name: str) -> bytes:
        """The content of a file of the bundle, its hash checked.

        Raises:
            BundleError: the file is missing, a link, or not what the manifest says.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.folder} has no {name} in its manifest: convert the checkpoint again")
        path = self.folder
        for part in Path(name).parts:
            path /= part
            if path.is_symlink():
                raise BundleError(f"{path} is a link, which is not followed: copy the bundle as plain files")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read ({error.strerror}): the bundle is incomplete, copy or convert it again"
            ) from error
        if (found := FileEntry.of(content)) != entry:
            what = (
                f"is {found.size_bytes} bytes, the manifest says {entry.size_bytes}"
                if found.size_bytes != entry.size_bytes
                else f"has SHA-256 {found.sha256[:12]}..., the manifest says {entry.sha256[:12]}..."
            )
            raise BundleError(f"{path} {what}: it was changed or cut short, copy or convert the bundle again")
        return content

    def artifact(self, name: str) -> str:
        """The path, inside the bundle, of the artifact made by converter `name`.

        Raises:
            BundleError: the bundle was made without it.
        """
        if name not in self.manifest.artifacts:
            have = ", ".join(self.manifest.artifacts) or "none"
            raise BundleError(
                f"{self.folder} has no {name} artifact (it has: {have}): convert again with `--targets {name}` added"
            )
        return self.manifest.artifacts[name]

    def files_under(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Every file of an artifact that is a folder, its hash checked.

        Raises:
            BundleError: a file is missing, changed, or there is one the manifest does not know.
        """
        prefix = f"{name}/"
        known = {file for file in self.manifest.files if file.startswith(prefix)}
        present = {
            path.relative_to(self.folder).as_posix()
            for path in (self.folder / name).rglob("*")
            if (not path.is_dir() or path.is_symlink()) and not is_litter(path.name)
        }
        if extra := sorted(present - known):
            raise BundleError(f"{self.folder} holds {extra[0]}, which its manifest does not know: convert again")
        for file in sorted(known):
            yield file, self.read(file)

    def extract(self, name: str, into: Path) -> Path:
        """Copy an artifact that is a folder into `into`: exactly the bytes whose hashes were checked.

        Nothing lies between check and use for whoever reads the copy, if `into` is private.

        Raises:
            BundleError: a file is missing, changed, or there is one the manifest does not know.
        """
        for file, content in self.files_under(name):
            path = into / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return into / name

    def sha256(self, name: str) -> str:
        """SHA-256 of an artifact; of one that is a folder, over a line `<sha256>  <path>` for each of its files."""
        if name in self.manifest.files:
            return self.manifest.files[name].sha256
        inside = sorted(file for file in self.manifest.files if file.startswith(f"{name}/"))
        lines = "".join(f"{self.manifest.files[file].sha256}  {file}\n" for file in inside)
        return hashlib.sha256(lines.encode()).hexdigest()

    def function(self) -> IntegerFunction:
        """The integer function.

        Raises:
            BundleError: its file is missing or changed.
        """
        content = self.read(FUNCTION)
        try:
            return integer_function.load(io.BytesIO(content))
        except ValueError as error:
            raise BundleError(f"{self.folder / FUNCTION} cannot be used: {error}") from error

    def golden(self) -> Golden:
        """The golden inputs and codes.

        Raises:
            BundleError: the file is missing, changed or not of the manifest's shapes.
        """
        content = self.read(GOLDEN)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                golden = Golden(**{name: stored[name] for name in ("x", "y1", "y2", "float_y1", "float_y2")})
        except (KeyError, TypeError, ValueError, EOFError, BadZipFile) as error:
            raise BundleError(
                f"{self.folder / GOLDEN} does not hold the golden inputs and outputs ({error})"
            ) from error
        specs = (self.manifest.input, *self.manifest.outputs)
        arrays: tuple[NDArray[Any], ...] = (golden.x, golden.y1, golden.y2)
        for spec, array, dtype in zip(specs, arrays, ("float32", "int8", "int8"), strict=True):
            if not len(array) or array.shape != (len(golden.x), *spec.shape[1:]) or array.dtype != dtype:
                raise BundleError(
                    f"{self.folder / GOLDEN} has `{spec.name}` as {array.dtype} {list(array.shape)}, where the "
                    f"manifest has {dtype} [N,{','.join(map(str, spec.shape[1:]))}]: convert the checkpoint again"
                )
        return golden
