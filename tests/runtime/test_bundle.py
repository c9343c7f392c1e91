"""Reading a bundle: every damage is found before anything parses the file, and is said in a sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litehrnet_stage2.reference.golden import codes_sha256
from litehrnet_stage2.reference.manifest import BundleError
from litehrnet_stage2.runtime import Bundle, open_session

RUNTIME_OF = {
    "function.npz": "golden",
    "stage2.pte": "executorch",
    "stage2.onnx": "onnxruntime",
}


@pytest.fixture
def edit(damaged: Path) -> Callable[[Callable[[Any], object]], Path]:
    """Change the damaged bundle's manifest in place, as a program; returns the bundle."""

    def run(change: Callable[[Any], object]) -> Path:
        path = damaged / "manifest.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        return damaged

    return run


def overwrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, and its entry in the manifest, so that the hash tells nothing."""
    (folder / name).write_bytes(data)
    values = json.loads((folder / "manifest.json").read_text())
    values["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", RUNTIME_OF)
class TestDamagedFile:
    def test_truncated(self, name: str, damaged: Path) -> None:
        (damaged / name).write_bytes((damaged / name).read_bytes()[:-100])
        with pytest.raises(BundleError, match=rf"{name} is \d+ bytes, the manifest says \d+: .* copy or convert"):
            open_session(damaged, RUNTIME_OF[name])

    @pytest.mark.parametrize("place", [0, 200, -1])
    def test_one_flipped_bit(self, place: int, name: str, damaged: Path) -> None:
        data = bytearray((damaged / name).read_bytes())
        data[place] ^= 4
        (damaged / name).write_bytes(data)
        with pytest.raises(BundleError, match=rf"{name} has SHA-256 \w+\.\.\., the manifest says"):
            open_session(damaged, RUNTIME_OF[name])

    def test_swapped(self, name: str, damaged: Path, other_file: str) -> None:
        shutil.copy(damaged / other_file, damaged / name)
        with pytest.raises(BundleError, match=f"{name} .* the manifest says"):
            open_session(damaged, RUNTIME_OF[name])

    def test_missing(self, name: str, damaged: Path) -> None:
        (damaged / name).unlink()
        with pytest.raises(BundleError, match=rf"{name} cannot be read \(No such file.*: the bundle is incomplete"):
            open_session(damaged, RUNTIME_OF[name])

    def test_a_folder_in_its_place(self, name: str, damaged: Path) -> None:
        (damaged / name).unlink()
        (damaged / name).mkdir()
        with pytest.raises(BundleError, match=rf"{name} cannot be read \(Is a directory"):
            open_session(damaged, RUNTIME_OF[name])

    def test_a_link_even_to_the_same_bytes(self, name: str, damaged: Path, tmp_path: Path) -> None:
        (damaged / name).rename(tmp_path / "elsewhere")
        (damaged / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match=f"{name} is a link, which is not followed"):
            open_session(damaged, RUNTIME_OF[name])

    def test_not_in_the_manifest(self, name: str, edit: Callable[[Callable[[Any], object]], Path]) -> None:
        folder = edit(lambda values: values["files"].pop(name))
        with pytest.raises(BundleError, match=f"has no {name} in its manifest"):
            open_session(folder, RUNTIME_OF[name])

    @pytest.fixture
    def other_file(self, name: str) -> str:
        return "stage2.pte" if name != "stage2.pte" else "stage2.onnx"


@pytest.mark.parametrize("target", ["executorch", "onnx", "coreml"])
def test_an_artifact_the_bundle_was_made_without_says_how_to_get_it(
    target: str, edit: Callable[[Callable[[Any], object]], Path]
) -> None:
    bundle = Bundle.open(edit(lambda values: values["artifacts"].pop(target)))
    with pytest.raises(BundleError, match=rf"has no {target} artifact \(it has: .*--targets {target}"):
        bundle.artifact(target)


# an artifact that is a folder


def test_the_mlpackage_is_read_file_by_file(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    files = dict(bundle.files_under(bundle.artifact("coreml")))
    assert "stage2.mlpackage/Manifest.json" in files
    assert all(data == (small_bundle / name).read_bytes() for name, data in files.items())


def _extra(package: Path) -> None:
    (package / "Data/evil.bin").write_bytes(b"more")


def _link(package: Path) -> None:
    (package / "Data/link").symlink_to("/etc/passwd")


def _linked_folder(package: Path) -> None:
    (package / "Data").rename(package.parent / "moved")
    (package / "Data").symlink_to(package.parent / "moved")


def _changed(package: Path) -> None:
    (package / "Manifest.json").write_text("{}")


def _missing(package: Path) -> None:
    (package / "Manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_extra, "holds stage2.mlpackage/Data/evil.bin, which its manifest does not know"),
        (_link, "holds stage2.mlpackage/Data/link, which its manifest does not know"),
        (_linked_folder, "which its manifest does not know|is a link, which is not followed"),
        (_changed, "Manifest.json is 2 bytes"),
        (_missing, "Manifest.json cannot be read"),
    ],
)
def test_a_package_with_a_file_too_many_too_few_or_changed_is_refused(
    damage: Callable[[Path], None], message: str, damaged: Path
) -> None:
    bundle = Bundle.open(damaged)
    damage(damaged / "stage2.mlpackage")
    with pytest.raises(BundleError, match=message):
        list(bundle.files_under("stage2.mlpackage"))


def test_what_macos_leaves_in_a_copied_folder_is_no_part_of_an_artifact(damaged: Path) -> None:
    for name in (".DS_Store", "stage2.mlpackage/.DS_Store", "stage2.mlpackage/Data/._model.mlmodel"):
        (damaged / name).write_bytes(b"litter")
    names = [name for name, _ in Bundle.open(damaged).files_under("stage2.mlpackage")]
    assert names
    assert not any(Path(name).name.startswith(".") for name in names)


# the manifest


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_schema_version_says_which_is_known(
    version: object, edit: Callable[[Callable[[Any], object]], Path]
) -> None:
    folder = edit(lambda values: values.update(schema_version=version))
    with pytest.raises(BundleError, match=rf"schema version {version!r}; this version reads 1: convert"):
        Bundle.open(folder)


@pytest.mark.parametrize("content", ["", "{", "\x00\x01", "nonsense"])
def test_a_manifest_that_is_no_json_is_damaged(content: str, damaged: Path) -> None:
    (damaged / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        Bundle.open(damaged)


def test_a_manifest_that_is_no_text_is_damaged(damaged: Path) -> None:
    (damaged / "manifest.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        Bundle.open(damaged)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_without_a_manifest_is_no_bundle(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "folder")
    with pytest.raises(BundleError, match=r"folder is no bundle \(it has no manifest.json\): make one with"):
        Bundle.open(tmp_path / "folder")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("files"),
        lambda values: values.pop("input"),
        lambda values: values.update(more=1),
        lambda values: values.update(files=[]),
        lambda values: values.update(files={"stage2.pte": {"sha256": "0"}}),
        lambda values: values.update(files={"stage2.pte": {"sha256": 0, "size_bytes": 0}}),
        lambda values: values.update(artifacts=[]),
        lambda values: values.update(artifacts=None),
        lambda values: values.update(outputs=values["outputs"][:1]),
        lambda values: values["input"].update(shape=[1, 4, 16]),
        lambda values: values["input"].update(shape=[1, 4, 16, "24"]),
        lambda values: values["outputs"][0].update(scale="small"),
        lambda values: values["outputs"][0].update(scale=0.0),
        lambda values: values["outputs"][0].update(zero_point=None),
        lambda values: values["outputs"][0].pop("scale"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_damaged(
    change: Callable[[Any], object], edit: Callable[[Callable[[Any], object]], Path]
) -> None:
    with pytest.raises(BundleError, match=r"manifest.json is damaged .*: convert the checkpoint again"):
        Bundle.open(edit(change))


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "", "C:/x", "a\\b", "..", "."])
@pytest.mark.parametrize("field", ["files", "artifacts"])
def test_a_path_out_of_the_bundle_is_refused_when_it_is_opened(
    field: str, path: str, edit: Callable[[Callable[[Any], object]], Path]
) -> None:
    def change(values: Any) -> None:
        if field == "files":
            values["files"][path] = {"sha256": "0" * 64, "size_bytes": 1}
        else:
            values["artifacts"]["onnx"] = path

    with pytest.raises(BundleError, match="which is not inside of the bundle"):
        Bundle.open(edit(change))


# contents that their hash does not save


def test_golden_inputs_of_another_shape_or_type_are_refused(damaged: Path) -> None:
    with np.load(damaged / "golden.npz") as arrays:
        whole = dict(arrays)
    for name, array, message in (
        ("x", whole["x"][..., :-2], r"`features` as float32 \[7, 4, 16, 22\]"),
        ("x", whole["x"].astype(np.float64), "`features` as float64"),
        ("y1", whole["y1"][:1], r"`y1` as int8 \[1, 4, 16, 24\]"),
        ("y2", whole["y2"].astype(np.int16), "`y2` as int16"),
    ):
        np.savez(damaged / "altered.npz", **{**whole, name: array})
        overwrite(damaged, "golden.npz", (damaged / "altered.npz").read_bytes())
        with pytest.raises(BundleError, match=f"golden.npz has {message}"):
            Bundle.open(damaged).golden()


def test_golden_without_an_output_is_refused(damaged: Path) -> None:
    with np.load(damaged / "golden.npz") as arrays:
        np.savez(damaged / "altered.npz", x=arrays["x"], y1=arrays["y1"])
    overwrite(damaged, "golden.npz", (damaged / "altered.npz").read_bytes())
    with pytest.raises(BundleError, match=r"golden.npz does not hold the golden inputs and outputs"):
        Bundle.open(damaged).golden()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"\x80\x04K\x01."], ids=["empty", "cut", "pickle"])
@pytest.mark.parametrize("name", ["golden.npz", "function.npz"])
def test_an_archive_that_is_none_is_refused(name: str, data: bytes, damaged: Path) -> None:
    overwrite(damaged, name, data)
    bundle = Bundle.open(damaged)
    with pytest.raises(BundleError, match=name):
        bundle.golden() if name == "golden.npz" else bundle.function()


def test_the_golden_hash_of_the_manifest_is_that_of_the_golden_codes(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    golden = bundle.golden()
    assert codes_sha256(golden.y1, golden.y2) == bundle.manifest.golden_sha256
