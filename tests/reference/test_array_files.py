"""Arrays are read as numpy writes them; a size that a file declares is never believed."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.reference.array_files import ArrayFileError, map_npy, read_npy, read_npz
from litehrnet_stage2.reference.errors import InputError

ARRAYS = (
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
    np.zeros((0, 4), np.float16),
    np.array(True),
    np.arange(3, dtype=">f8"),
)


def npy(descr: str, shape: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_what_numpy_wrote_is_read(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array)
    for found in (read_npy(path), read_npy(path.read_bytes()), map_npy(path)):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert np.array_equal(found, array)
        assert found.flags.f_contiguous == array.flags.f_contiguous
    assert read_npy(path).flags.writeable
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", a=array, b=array)
        assert np.array_equal(read_npz(tmp_path / "x.npz")["b"], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("'<f4'", "(1000000000000,)", b"\0" * 400), r"declares float32 \[1000000000000\], 4,000,000,000,000 bytes"),
        (npy("'<f4'", "(2, 2)", b"\0" * 15), "and holds 15: it is damaged or cut short"),
        (npy("'<f4'", "(2, 2)", b"\0" * 17), "and holds 17"),
        (npy("'<f4'", "(-1, -4)", b"\0" * 16), "which no array here has"),
        (npy("'<f4'", "(0, 1180591620717411303424)"), "which no array here has"),
        (npy("'|V0'", "(1000000000,)"), "only plain numbers are read"),
        (npy("'|O'", "(1,)", b"\x80\x04N."), "only plain numbers are read"),
        (npy("[('a', '<f4')]", "(1,)", b"\0" * 4), "only plain numbers are read"),
        (npy("'<f4'", "(" * 90), "is no .npy array of numbers, or is damaged"),
        (npy("'<f4'", "-" * 60 + "1"), "is no .npy array of numbers, or is damaged"),
        (npy("'<f4'", "(1,)", b"\0" * 4, version=b"\x09\x00"), "is no .npy array of numbers, or is damaged"),
        (b"", "is no .npy array of numbers, or is damaged"),
        (b"PK\x03\x04", "is no .npy array of numbers, or is damaged"),
    ],
)
def test_a_header_is_not_believed(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    for read in (read_npy, map_npy):
        with pytest.raises(ArrayFileError, match=message):
            read(path)


def test_a_pipe_and_a_huge_sparse_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    with (tmp_path / "sparse.npy").open("wb") as file:
        file.write(npy("'<f4'", f"({2**33},)"))
        file.truncate(file.tell() + 2**35)
    for name, message in (("pipe.npy", "no regular file"), ("sparse.npy", "34,359,738,4.. bytes, and at most 4,294")):
        with pytest.raises(InputError, match=message):
            read_npy(tmp_path / name)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abcd":
            archive.writestr(f"{name}.npy", npy("'|i1'", "(67108864,)", bytes(2**26)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ArrayFileError, match=r"declares 268,435,.* bytes of arrays, and at most 134,217,728 are read"):
        read_npz(bomb.getvalue(), most_bytes=2**27)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # KiB


def test_a_member_that_is_longer_than_it_declares_is_refused() -> None:
    stored = io.BytesIO()
    np.savez_compressed(stored, a=np.zeros(100_000, np.int8))
    content = bytearray(stored.getvalue())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 200)
    with pytest.raises(ArrayFileError):
        read_npz(bytes(content))


def test_every_flip_cut_and_swap_of_an_npz_is_its_arrays_or_one_sentence() -> None:
    stored = io.BytesIO()
    np.savez_compressed(stored, a=ARRAYS[0], b=ARRAYS[1])
    good = stored.getvalue()
    rng = np.random.default_rng(0)
    for trial in range(400):
        bad = bytearray(good)
        match trial % 3:
            case 0:
                bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
            case 1:
                del bad[rng.integers(len(bad)) :]
            case _:
                start, stop = sorted(rng.integers(len(bad), size=2))
                bad[start:stop] = bad[start:stop][::-1]
        with contextlib.suppress(ArrayFileError):
            read_npz(bytes(bad))
