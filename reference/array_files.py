"""Reads arrays of numbers from `.npy` and `.npz` files, and believes nothing that they say (numpy only).

A header of a hundred bytes can ask for petabytes. Here the size that it declares is compared with the file before
memory is asked for, and what is compressed is read only up to a stated limit.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import open_regular, read_regular

MOST_BYTES = 2**32
"""Of one file, or of what one `.npz` holds: more than any use of this package needs."""

_LONGEST_HEADER = 512  # an array of numbers of eight dimensions needs 200
_MOST_DIMENSIONS = 8
_MOST_MEMBERS = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


class ArrayFileError(InputError):
    """A file is not the arrays that it should be. Of content without a path the message is the end of a sentence."""


def read_npy(source: Path | bytes) -> NDArray[Any]:
    """The array of a `.npy` file, which may be changed: numbers or truth values, no objects and no structures.

    Raises:
        ArrayFileError: it is no `.npy`, or not of the size that its header declares.
        InputError: it is no regular file, or larger than `MOST_BYTES`.
        OSError: it cannot be read.
    """
    if isinstance(source, bytes):
        return _npy(io.BytesIO(source), len(source))
    with open_regular(source, most_bytes=MOST_BYTES) as file, _named(source):
        return _npy(file, os.fstat(file.fileno()).st_size)


def map_npy(path: Path) -> NDArray[Any]:
    """Like `read_npy`, but mapped into memory, not to be changed, and of any size.

    Raises:
        ArrayFileError, InputError, OSError: as `read_npy`.
    """
    with open_regular(path, most_bytes=None) as file, _named(path):
        shape, fortran, dtype = _header(file, os.fstat(file.fileno()).st_size)
        if math.prod(shape) == 0:
            return np.zeros(shape, dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def read_npz(source: Path | bytes, *, most_bytes: int = MOST_BYTES) -> dict[str, NDArray[Any]]:
    """Every array of a `.npz` file, by name.

    Args:
        source: the file or its content.
        most_bytes: what its arrays may take together, unpacked.

    Raises:
        ArrayFileError: it is no `.npz`, damaged, or its arrays are larger than `most_bytes`.
        InputError: it is no regular file, or larger than `MOST_BYTES`.
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        content = read_regular(source, most_bytes=MOST_BYTES)
        with _named(source):
            return read_npz(content, most_bytes=most_bytes)
    try:
        return dict(_members(source, most_bytes))
    except ArrayFileError:
        raise
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, struct.error),
        *(LookupError, ArithmeticError, RuntimeError, ValueError),
    ) as error:
        raise ArrayFileError(f"is no .npz of arrays, or is damaged ({error})") from error


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ArrayFileError as error:
        raise ArrayFileError(f"{path} {error}") from error


def _members(content: bytes, most_bytes: int) -> list[tuple[str, NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS or len({member.filename for member in members}) < len(members):
            raise ArrayFileError(f"holds {len(members)} arrays, some twice or more than {_MOST_MEMBERS}")
        if (declared := sum(member.file_size for member in members)) > most_bytes:
            raise ArrayFileError(f"declares {declared:,} bytes of arrays, and at most {most_bytes:,} are read")
        arrays = []
        for member in members:
            if member.compress_type not in _COMPRESSIONS or member.flag_bits & _ENCRYPTED:
                raise ArrayFileError(
                    f"has a member {member.filename!a} that is encrypted, or compressed in an unknown way"
                )
            with archive.open(member) as stream:
                unpacked = stream.read(member.file_size + 1)
            if len(unpacked) != member.file_size:
                raise ArrayFileError(
                    f"has a member {member.filename!a} that is not of the {member.file_size:,} bytes it declares"
                )
            arrays.append((member.filename.removesuffix(".npy"), read_npy(unpacked)))
        return arrays


def _npy(file: BinaryIO, size: int) -> NDArray[Any]:
    shape, fortran, dtype = _header(file, size)
    array = np.empty(shape, dtype, "F" if fortran else "C")
    flat = array.reshape(-1, order="A")
    if file.readinto(flat.view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
        raise ArrayFileError("was cut short while it was read")
    return array


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and dtype of the array that follows, and fills the file to its end."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # numpy evaluates the header as Python: it fails in as many ways as that can
        raise ArrayFileError("is no .npy array of numbers, or is damaged") from error
    if dtype.kind not in "biuf" or not 0 < dtype.itemsize <= 8:
        raise ArrayFileError(f"holds {dtype}, and only plain numbers are read")
    sizes = all(type(length) is int and 0 <= length < 2**40 for length in shape)
    if not sizes or len(shape) > _MOST_DIMENSIONS:
        raise ArrayFileError(f"declares the shape {list(shape)}, which no array here has")
    declared, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != held:
        raise ArrayFileError(
            f"declares {dtype} {list(shape)}, {declared:,} bytes, and holds {held:,}: it is damaged or cut short"
        )
    return shape, bool(fortran), dtype
