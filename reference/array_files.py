"""Reads arrays of numbers from `.npy` and `.npz` files, and believes nothing that they say (numpy only).

A header of a hundred bytes can ask for petabytes. Here the size that it declares is compared with the file before
memory is asked for, and what is compressed is read only up to a stated limit.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**32
"""Of one file, or of what one `.npz` holds: more than any use of this package needs."""

_LONGEST_HEADER = 512  # an array of numbers of eight dimensions needs 200
_MOST_DIMENSIONS = 8
_MOST_MEMBERS = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1


class ArrayFileError(ValueError):
    """A file is not the arrays that it should be; the message says why and names no path."""


def read_npy(source: Path | bytes) -> NDArray[Any]:
    """The array of a `.npy` file, which may be changed: numbers or truth values, no objects and no structures.

    Raises:
        ArrayFileError: it is no regular file, too large, no `.npy`, or not of the size that its header declares.
        OSError: it cannot be read.
    """
    if isinstance(source, bytes):
        return _npy(io.BytesIO(source), len(source))
    with _opened(source) as file:
        return _npy(file, os.fstat(file.fileno()).st_size)


def map_npy(path: Path) -> NDArray[Any]:
    """Like `read_npy`, but mapped into memory, not to be changed, and of any size.

    Raises:
        ArrayFileError: as `read_npy`.
        OSError: it cannot be read.
    """
    with _opened(path, most_bytes=None) as file:
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
        ArrayFileError: it is no regular file, no `.npz`, damaged, or its arrays are larger than `most_bytes`.
        OSError: it cannot be read.
    """
    content = source if isinstance(source, bytes) else _content(source)
    try:
        return dict(_members(content, most_bytes))
    except ArrayFileError:
        raise
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError, struct.error),
        *(LookupError, ArithmeticError, RuntimeError, ValueError),
    ) as error:
        raise ArrayFileError(f"it is no .npz of arrays, or is damaged ({error})") from error


def _members(content: bytes, most_bytes: int) -> list[tuple[str, NDArray[Any]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS or len({member.filename for member in members}) < len(members):
            raise ArrayFileError(f"it holds {len(members)} arrays, some twice or more than {_MOST_MEMBERS}")
        if (declared := sum(member.file_size for member in members)) > most_bytes:
            raise ArrayFileError(f"it declares {declared:,} bytes of arrays, and at most {most_bytes:,} are read")
        arrays = []
        for member in members:
            if member.compress_type not in _COMPRESSIONS or member.flag_bits & _ENCRYPTED:
                raise ArrayFileError(f"its member {member.filename!a} is encrypted, or compressed in an unknown way")
            with archive.open(member) as stream:
                unpacked = stream.read(member.file_size + 1)
            if len(unpacked) != member.file_size:
                raise ArrayFileError(
                    f"its member {member.filename!a} is not of the {member.file_size:,} bytes it declares"
                )
            arrays.append((member.filename.removesuffix(".npy"), read_npy(unpacked)))
        return arrays


def _opened(path: Path, *, most_bytes: int | None = MOST_BYTES) -> BinaryIO:
    # Without waiting: a FIFO nobody writes to would hold up the plain call for ever.
    file = open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")  # noqa: PTH123, SIM115
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise ArrayFileError("it is no regular file: copy what it stands for into one")
    if most_bytes is not None and found.st_size > most_bytes:
        file.close()
        raise ArrayFileError(f"it has {found.st_size:,} bytes, and at most {most_bytes:,} are read")
    return file


def _content(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read()


def _npy(file: BinaryIO, size: int) -> NDArray[Any]:
    shape, fortran, dtype = _header(file, size)
    array = np.empty(shape, dtype, "F" if fortran else "C")
    flat = array.reshape(-1, order="A")
    if file.readinto(flat.view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
        raise ArrayFileError("it was cut short while it was read")
    return array


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns lie together, and dtype of the array that follows, and fills the file to its end."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    except Exception as error:  # numpy evaluates the header as Python: it fails in as many ways as that can
        raise ArrayFileError("it is no .npy array of numbers, or is damaged") from error
    if dtype.kind not in "biuf" or not 0 < dtype.itemsize <= 8:
        raise ArrayFileError(f"it holds {dtype}, and only plain numbers are read")
    sizes = all(type(length) is int and 0 <= length < 2**40 for length in shape)
    if not sizes or len(shape) > _MOST_DIMENSIONS:
        raise ArrayFileError(f"it declares the shape {list(shape)}, which no array here has")
    declared, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != held:
        raise ArrayFileError(
            f"it declares {dtype} {list(shape)}, {declared:,} bytes, and holds {held:,}: it is damaged or cut short"
        )
    return shape, bool(fortran), dtype
