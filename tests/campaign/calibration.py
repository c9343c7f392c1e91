"""Hostile feature files: what a person gives as calibration, golden inputs or training shards."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litehrnet_stage2.apps.features_file import load_features
from litehrnet_stage2.apps.qat.features import FeatureShards
from tests.campaign.damage import accident, many_flips
from tests.campaign.judge import Case

SHAPES = (
    "(4, 4, 16, 24)", "(-1, 4, 16, 24)", "(4611686018427387904, 4, 16, 24)", "(0, 4, 16, 24)", "(4, 4, 16)", "()",
    "(4, 4, 16, 24, 1, 1, 1, 1, 1)", "(True, 4, 16, 24)", "(4.0, 4, 16, 24)", "4", "None", "'x'", "(4,)*99999999",
    "(4, 4, 1000000, 1000000)", "(1,)" * 30, "[4, 4, 16, 24]", "__import__('os')", "(9" + "9" * 90 + ",)",
)  # fmt: skip
DESCRS = (
    "'<f4'", "'>f4'", "'<f8'", "'<f2'", "'<f16'", "'|O'", "'|V0'", "'<U4'", "'<c8'", "'<M8[s]'", "'|b1'", "'<i8'",
    "[('a', '<f4')]", "[('a', '|O')]", "('<f4', (1000, 1000, 1000))", "None", "5", "'" + "f" * 90 + "'", "'<f4\\x00'",
)  # fmt: skip
ORDERS = ("False", "True", "None", "5", "'x'")
VERSIONS = (b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\xff\xff")


def files(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A `.npy` that is damaged, lies, or is something else altogether."""
    rng = np.random.default_rng(seed)
    good = (folder / "features.npy").read_bytes()
    payload = good[128:]
    for index in range(1 << 60):
        path = scratch / f"x{index % 8}.npy"
        path.unlink(missing_ok=True)
        kind = ("accident", "flips", "header", "values", "other", "odd")[rng.integers(6)]
        what = ""
        if kind == "accident":
            what, bad = accident(good, rng)
            path.write_bytes(bad)
        elif kind == "flips":
            path.write_bytes(many_flips(good[:160], rng) + good[160:])
        elif kind == "header":
            what, bad = lying_header(rng)
            path.write_bytes(bad + payload)
        elif kind == "values":
            what = str(value := rng.choice([np.nan, np.inf, -np.inf, 1e38, 0.0, 1e-45]))
            np.save(path, np.full((4, 4, 16, 24), value, rng.choice([np.float16, np.float32, np.float64])))
        elif kind == "other":
            what, bad = _other(good, rng)
            path.write_bytes(bad)
        else:
            what = _odd(path, rng)
        read = (_features, _shards)[rng.integers(2)]
        yield Case(f"{kind} {what} as {read.__name__}", lambda path=path, read=read: read(path))


def _features(path: Path) -> None:
    load_features(path, 4)


def _shards(path: Path) -> None:
    FeatureShards([path], channels=4).gather([0])


def lying_header(rng: np.random.Generator) -> tuple[str, bytes]:
    shape, descr, order = (str(values[rng.integers(len(values))]) for values in (SHAPES, DESCRS, ORDERS))
    version = VERSIONS[rng.integers(len(VERSIONS)) if rng.integers(3) == 0 else 0]
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = str(rng.choice([text, text, text, text.replace("'shape'", "'size'"), "(" * 300, "-" * 400 + "1", text * 2]))
    encoded = text.encode().ljust(117) + b"\n"
    length = len(encoded) if rng.integers(8) else int(rng.choice([0, 1, 65535]))
    packed = struct.pack("<H" if version == b"\x01\x00" else "<I", length)
    return f"{descr} {shape}", b"\x93NUMPY" + version + packed + encoded


def _other(good: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", good)
    others = {
        "empty": b"",
        "npz": zipped.getvalue(),
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        "text": b"not an array\n" * 10,
        "zeros": bytes(1000),
        "png": b"\x89PNG\r\n\x1a\n" + rng.bytes(100),
        "noise": rng.bytes(1000),
        "twice": good + good,
    }
    what = list(others)[rng.integers(len(others))]
    return what, others[what]


def _odd(path: Path, rng: np.random.Generator) -> str:
    what = ("fifo", "folder", "sparse", "link to itself", "link to a device", "nothing")[rng.integers(6)]
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        if path.is_dir():
            return what
        path = path.with_name(f"folder-{rng.integers(1 << 60)}.npy")
        path.mkdir()
    elif what == "sparse":
        with path.open("wb") as file:
            file.write(lying_header(rng)[1])
            file.truncate(2**37)
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "link to a device":
        path.symlink_to(str(rng.choice(["/dev/zero", "/dev/urandom", "/dev/null", "/dev/stdin"])))
    return what
