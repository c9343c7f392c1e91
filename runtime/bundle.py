"""Reading a bundle: nothing in it is trusted before its hash was checked, and its parts before they agree."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference import golden, integer_function
from litehrnet_stage2.reference.array_files import ArrayFileError, read_npz
from litehrnet_stage2.reference.contract.manifest import (
    FUNCTION,
    GOLDEN,
    BundleError,
    FileEntry,
    Manifest,
    TensorSpec,
    border_specs,
    holds_bundle,
)
from litehrnet_stage2.reference.files import open_regular
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.runtime.onnx_file import OnnxFileError, check_self_contained


def is_litter(name: str) -> bool:
    """Whether a file is what macOS leaves in folders that it copies."""
    return name == ".DS_Store" or name.startswith("._")


@dataclass(frozen=True)
class Golden:
    """Inputs and the codes that every runtime has to give for them, each by its name in the manifest's order.

    Attributes:
        inputs: int8 `[N, C, H, W]`.
        outputs: int8 `[N, C', H', W']`.
        floats: float16 `[M, C', H', W']`, what the network gave before quantisation for the first inputs, the
            photographs; empty where it is not known.
        quantization: what the codes of each input mean.
    """

    inputs: Mapping[str, NDArray[np.int8]]
    outputs: Mapping[str, NDArray[np.int8]]
    quantization: Mapping[str, Quantization]
    floats: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @cached_property
    def real(self) -> tuple[NDArray[np.float32], ...]:
        """Each input as float32, on its grid."""
        return tuple(self.quantization[name].dequantize(codes) for name, codes in self.inputs.items())

    @property
    def x(self) -> NDArray[np.float32]:
        """The same, of a function with one input."""
        (x,) = self.real
        return x


@dataclass(frozen=True)
class Bundle:
    """A folder that `stage2 convert` made."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read the manifest, and check it against the function and the golden codes; artifacts are checked when read.

        Raises:
            BundleError: not a bundle, damaged, of another schema version, or its parts are of different functions.
        """
        if folder.is_file() and holds_bundle(folder.parent):
            raise BundleError(f"{folder} is a file of a bundle: give its folder, {folder.parent}")
        bundle = cls(folder, Manifest.read(folder))
        bundle._check_function()
        bundle.golden()
        return bundle

    def read(self, name: str) -> bytes:
        """The content of a file of the bundle: a regular file, of the size and then of the hash that are due.

        Raises:
            BundleError: the file is missing, a link, not what the manifest says, or an `.onnx` with data elsewhere.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.folder} has no {name} in its manifest: convert the checkpoint again")
        path = self.folder
        for part in Path(name).parts:
            path /= part
            if path.is_symlink():
                raise BundleError(f"{path} is a link, which is not followed: copy the bundle as plain files")
        changed = "it was changed or cut short, copy or convert the bundle again"
        try:
            with open_regular(path, most_bytes=None) as file:
                if (size := os.fstat(file.fileno()).st_size) != entry.size_bytes:
                    raise BundleError(f"{path} is {size} bytes, the manifest says {entry.size_bytes}: {changed}")
                content = file.read(entry.size_bytes + 1)
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read ({error.strerror}): the bundle is incomplete, copy or convert it again"
            ) from error
        if (found := FileEntry.of(content)) != entry:
            raise BundleError(
                f"{path} has SHA-256 {found.sha256[:12]}..., the manifest says {entry.sha256[:12]}...: {changed}"
            )
        if path.suffix == ".onnx":
            try:
                check_self_contained(content)
            except OnnxFileError as error:
                raise BundleError(f"{path} cannot be opened: {error}") from error
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
        return self.manifest.artifacts[name].file

    def is_folder(self, name: str) -> bool:
        """Whether an artifact is a folder of files."""
        return any(file.startswith(f"{name}/") for file in self.manifest.files)

    def files_under(self, name: str) -> Iterator[tuple[str, bytes]]:
        """Every file of an artifact that is a folder, its hash checked; what a Mac strews about is not looked at.

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
            raise BundleError(f"{self.folder} holds {extra[0]!a}, which its manifest does not know: convert again")
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
        """SHA-256 of an artifact, as `Manifest.sha256`."""
        return self.manifest.sha256(name)

    def function(self) -> IntegerFunction:
        """The integer function.

        Raises:
            BundleError: its file is missing, changed, or holds none.
        """
        return self._function

    def golden(self) -> Golden:
        """The golden inputs and codes; they are checked against the manifest.

        Raises:
            BundleError: the file is missing, changed, or not what the manifest says.
        """
        return self._golden

    @cached_property
    def _function(self) -> IntegerFunction:
        content = self.read(FUNCTION)
        try:
            return integer_function.load(io.BytesIO(content))
        except ValueError as error:
            raise BundleError(f"{self.folder / FUNCTION} cannot be used: {error}") from error

    @cached_property
    def _golden(self) -> Golden:
        path = self.folder / GOLDEN
        try:
            arrays = read_npz(self.read(GOLDEN))
        except ArrayFileError as error:
            raise BundleError(f"{path} {error}") from error
        inputs = _take(arrays, "input", self.manifest.inputs, np.int8, path)
        outputs = _take(arrays, "output", self.manifest.outputs, np.int8, path)
        floats = _take(arrays, "float", self.manifest.outputs, np.float16, path)
        counts = {len(array) for array in (*inputs.values(), *outputs.values())}
        if len(counts) != 1 or counts == {0} or len({len(array) for array in floats.values()}) != 1:
            raise BundleError(f"{path} holds different numbers of inputs and outputs: convert the checkpoint again")
        if golden.codes_sha256(*outputs.values()) != self.manifest.golden_sha256:
            raise BundleError(f"{path} holds other codes than those of `golden_sha256`: convert the checkpoint again")
        quantization = {spec.name: spec.quantization for spec in self.manifest.inputs}
        return Golden(inputs, outputs, quantization, floats)

    def _check_function(self) -> None:
        """Check that the inputs and outputs of the manifest are those of the function."""
        manifest = self.manifest
        due = border_specs(self.function())
        for kind, specs, found in zip(("inputs", "outputs"), due, (manifest.inputs, manifest.outputs), strict=True):
            if found != specs:
                raise BundleError(f"{self.folder}: `{kind}` of its manifest are not those of its {FUNCTION}")


def _take(
    arrays: Mapping[str, NDArray[Any]], kind: str, specs: Sequence[TensorSpec], dtype: type, path: Path
) -> dict[str, NDArray[Any]]:
    """The arrays of `golden.npz` of one kind, by name, checked against the manifest's shapes."""
    taken = {}
    for spec in specs:
        array = arrays.get(f"{kind}/{spec.name}")
        due = f"{np.dtype(dtype)} [N,{','.join(map(str, spec.shape[1:]))}]"
        if array is None or array.dtype != dtype or array.shape[1:] != spec.shape[1:]:
            has = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise BundleError(f"{path} has {has} as `{kind}/{spec.name}`, not {due}: convert the checkpoint again")
        taken[spec.name] = array
    return taken
