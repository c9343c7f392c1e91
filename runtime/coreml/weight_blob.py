"""Read constants out of a Core ML weight file, trusting nothing in it.

The format is Core ML's blob storage, version 2 (`MILBlob/Blob/StorageFormat.hpp` in apple/coremltools): a
header of 64 bytes, then for each constant a record of 64 bytes and its data, each starting at a multiple of
64. A program names a constant by the offset of its record. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litehrnet_stage2.reference.errors import InputError

_ALIGNMENT = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF
_HEADER = struct.Struct("<II")  # number of constants, version
_RECORD = struct.Struct("<IIQQ")  # sentinel, type, size of the data in bytes, offset of the data
_DTYPES = {
    1: np.dtype(np.float16),
    2: np.dtype(np.float32),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int8),
    6: np.dtype(np.int16),
    7: np.dtype(np.uint16),
    14: np.dtype(np.int32),
    15: np.dtype(np.uint32),
}


@dataclass(frozen=True)
class WeightFile:
    """A weight file, read once.

    Raises:
        ValueError: the file is missing, unreadable, or its header is not that of a version 2 blob storage.
    """

    path: Path
    _content: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the weight file {self.path}: {error.strerror}") from error
        if len(content) < _ALIGNMENT:
            raise InputError(
                f"the weight file {self.path} is cut short: {len(content)} bytes, fewer than its header has"
            )
        _, version = _HEADER.unpack_from(content)
        if version != _VERSION:
            raise InputError(f"the weight file {self.path} has version {version}, but only {_VERSION} is read")
        object.__setattr__(self, "_content", content)

    def read(self, offset: int, *, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The constant whose record is at `offset`, read-only, of the shape and dtype the program declares.

        Raises:
            ValueError: the record or the data lie outside of the file, or the record is not one of `dtype`
                and of exactly as many bytes as `shape` needs.
        """
        where = f"the constant at offset {offset} of {self.path}"
        end = len(self._content)
        if offset % _ALIGNMENT or not _ALIGNMENT <= offset <= end - _ALIGNMENT:
            raise InputError(
                f"{where} is not there: records start at multiples of {_ALIGNMENT} after the header, "
                f"and the file ends at {end}; it is damaged or cut short"
            )
        sentinel, code, size, start = _RECORD.unpack_from(self._content, offset)
        if sentinel != _SENTINEL:
            raise InputError(f"{where} starts with {sentinel:#010x} instead of {_SENTINEL:#010x}: it is damaged")
        if _DTYPES.get(code) != dtype:
            stored = _DTYPES.get(code, f"unknown type {code}")
            raise InputError(f"{where} holds {stored}, but the program declares {dtype}")
        count = 1
        for length in shape:
            count *= length
        if size != count * dtype.itemsize:
            raise InputError(f"{where} holds {size} bytes, but shape {shape} of {dtype} takes {count * dtype.itemsize}")
        if start % _ALIGNMENT or start < offset + _ALIGNMENT or start + size > end:
            raise InputError(
                f"{where} has its data at bytes {start} to {start + size}, which must start at a multiple"
                f" of {_ALIGNMENT} behind its record and end within the file; it is damaged or cut short"
            )
        stored = np.frombuffer(self._content, dtype.newbyteorder("<"), count, start)
        return stored.astype(dtype, copy=False).reshape(shape)
