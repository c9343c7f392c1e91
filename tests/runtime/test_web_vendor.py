"""onnxruntime-web as it ships: unchanged, licensed, small, and refused if somebody changed it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import pytest

from litehrnet_stage2.runtime.web import vendor

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runtime" / "web" / vendor.FOLDER


def test_the_files_are_those_of_the_pinned_version() -> None:
    assert hashlib.sha256(vendor.module()).hexdigest() == vendor.SHA256[vendor.MODULE]
    assert hashlib.sha256(gzip.decompress(vendor.compressed_wasm())).hexdigest() == vendor.SHA256[vendor.WASM]
    assert f"ONNX Runtime Web v{vendor.VERSION}\n".encode() in vendor.module()


def test_the_licence_and_the_notices_are_beside_them() -> None:
    assert (FOLDER / "LICENSE").read_text().startswith("MIT License")
    assert "THIRD PARTY SOFTWARE NOTICES" in (FOLDER / "ThirdPartyNotices.txt").read_text(encoding="utf-8").upper()


@pytest.mark.parametrize("change", [b"x", gzip.compress(b"x", mtime=0)], ids=["garbage", "another content"])
def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, change: bytes) -> None:
    monkeypatch.setattr(vendor, "_read", lambda name: change)
    with pytest.raises(vendor.VendorError, match=r"install the package again$"):
        vendor.module()
    with pytest.raises(vendor.VendorError, match=r"install the package again$"):
        vendor.compressed_wasm()


def test_the_wheel_stays_below_6_mb() -> None:
    packaged = [
        path
        for folder in ("reference", "converters", "runtime", "apps")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert FOLDER / f"{vendor.WASM}.gz" in packaged
    assert sum(len(zlib.compress(path.read_bytes(), 6)) for path in packaged) < 6_000_000
