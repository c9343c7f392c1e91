"""Core ML weight files: what is stored comes back, and what is damaged is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.coreml.weight_blob import WeightFile

FLOATS = np.arange(6, dtype=np.float32).reshape(2, 3)
HEADER, RECORD, DATA = 0, 64, 128


def weight_file(folder: Path, *, cut: int | None = None, **patches: int) -> Path:
    """A file of one float32 constant; `patches` replace fields of its header and its record."""
    fields = {"version": 2, "sentinel": 0xDEADBEEF, "type": 2, "size": 24, "start": DATA} | patches
    header = struct.pack("<II", 1, fields["version"])
    record = struct.pack("<IIQQ", *(fields[name] for name in ("sentinel", "type", "size", "start")))
    path = folder / "weight.bin"
    path.write_bytes((header.ljust(64, b"\0") + record.ljust(64, b"\0") + FLOATS.tobytes())[:cut])
    return path


def read(path: Path, *, offset: int = RECORD, dtype: str = "float32", count: int = 6) -> np.ndarray:
    return WeightFile(path).read(offset, dtype=np.dtype(dtype), shape=(count,))


def test_constant_comes_back_with_its_shape_and_is_read_only(tmp_path: Path) -> None:
    stored = WeightFile(weight_file(tmp_path)).read(RECORD, dtype=np.dtype(np.float32), shape=(2, 3))
    np.testing.assert_array_equal(stored, FLOATS)
    assert not stored.flags.writeable


@pytest.mark.parametrize("cut", [0, 1, 63])
def test_file_without_a_whole_header_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ValueError, match=rf"is cut short: {cut} bytes"):
        WeightFile(weight_file(tmp_path, cut=cut))


@pytest.mark.parametrize("cut", [64, 100, 127, 128, 140, 151])
def test_file_that_ends_before_its_constant_does_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ValueError, match=r"damaged or cut short"):
        read(weight_file(tmp_path, cut=cut))


@pytest.mark.parametrize("offset", [0, 32, 65, 128, 192, 2**63])
def test_offset_where_no_record_can_be_is_refused(tmp_path: Path, offset: int) -> None:
    with pytest.raises(ValueError, match=rf"at offset {offset} of .*weight\.bin"):
        read(weight_file(tmp_path), offset=offset)


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ({"version": 1}, r"has version 1, but only 2"),
        ({"sentinel": 0xDEADBEEE}, r"starts with 0xdeadbeee instead of 0xdeadbeef"),
        ({"type": 4}, r"holds int8, but the program declares float32"),
        ({"type": 99}, r"holds unknown type 99"),
        ({"size": 20}, r"holds 20 bytes, but shape \(6,\) of float32 takes 24"),
        ({"size": 2**64 - 8}, r"but shape \(6,\) of float32 takes 24"),
        ({"start": 192}, r"bytes 192 to 216"),
        ({"start": 2**64 - 64}, r"damaged or cut short"),
        ({"start": 132}, r"must start at a multiple of 64"),
        ({"start": 64}, r"behind its record"),
        ({"start": 0}, r"behind its record"),
    ],
)
def test_damaged_header_or_record_is_refused(tmp_path: Path, patches: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(weight_file(tmp_path, **patches))


@pytest.mark.parametrize(("dtype", "count"), [("float16", 12), ("float32", 5), ("float32", 7), ("int8", 24)])
def test_constant_of_another_type_or_size_than_declared_is_refused(tmp_path: Path, dtype: str, count: int) -> None:
    with pytest.raises(ValueError, match=r"but"):
        read(weight_file(tmp_path), dtype=dtype, count=count)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the weight file .*missing\.bin"):
        WeightFile(tmp_path / "missing.bin")
