"""Reading a bundle: every damage is found before anything parses the file, and is said in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.apps.serve import bundle_models
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, DEFAULT_TARGETS, Border
from litehrnet_stage2.reference.contract.manifest import BundleError
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.golden import codes_sha256
from litehrnet_stage2.runtime import Bundle, check_parity, open_session
from litehrnet_stage2.runtime.latency import bundle_candidates

BUNDLES = Path(__file__).parents[1] / "bundles"

RUNTIME_OF = {
    "function.npz": "golden",
    "stage2.pte": "executorch",
    "stage2.onnx": "onnxruntime",
}


Edit: TypeAlias = Callable[[Callable[[Any], object]], Path]


@pytest.fixture
def edit(damaged: Path, forge: Callable[..., None]) -> Edit:
    """Change the damaged bundle's manifest in place, its hash too; returns the bundle."""

    def run(change: Callable[[Any], object]) -> Path:
        forge(damaged, change)
        return damaged

    return run


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

    def test_not_in_the_manifest(self, name: str, edit: Edit) -> None:
        folder = edit(lambda values: values["files"].pop(name))
        with pytest.raises(BundleError, match=f"has no {name} in its manifest"):
            open_session(folder, RUNTIME_OF[name])

    @pytest.fixture
    def other_file(self, name: str) -> str:
        return "stage2.pte" if name != "stage2.pte" else "stage2.onnx"


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    "name", ["manifest.json", "manifest.sha256", *RUNTIME_OF, "golden.npz", "stage2.mlpackage/Manifest.json"]
)
@pytest.mark.parametrize(
    ("damage", "message"), [(_fifo, "is no regular file"), (_sparse, r"1,?099,?511,?627,?776 bytes")]
)
def test_what_would_wait_or_fill_the_memory_is_refused_before_it_is_read(
    damage: Callable[[Path], None], message: str, name: str, damaged: Path
) -> None:
    damage(damaged / name)
    with pytest.raises(InputError, match=message):
        open_session(damaged, RUNTIME_OF.get(name, "coreml-eval"))


@pytest.mark.parametrize("target", DEFAULT_TARGETS)
def test_an_artifact_the_bundle_was_made_without_says_how_to_get_it(target: str, edit: Edit) -> None:
    def without(values: Any) -> None:
        values["artifacts"].pop(target)
        values["coverage"].pop(target)

    bundle = Bundle.open(edit(without))
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


def test_what_a_mac_strews_about_is_not_looked_at(damaged: Path) -> None:
    for name in (".DS_Store", "Data/.DS_Store", "Data/._Manifest.json"):
        (damaged / "stage2.mlpackage" / name).write_bytes(b"")
    assert open_session(damaged, "coreml-eval").info.artifact == "stage2.mlpackage"


def _missing(package: Path) -> None:
    (package / "Manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_extra, "holds 'stage2.mlpackage/Data/evil.bin', which its manifest does not know"),
        (_link, "holds 'stage2.mlpackage/Data/link', which its manifest does not know"),
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


@pytest.mark.parametrize("version", [0, 2, "1", "3.0", "2", None, "2.x"])
def test_an_unknown_schema_version_says_which_is_known(version: object, edit: Edit) -> None:
    folder = edit(lambda values: values.update(schema_version=version))
    with pytest.raises(BundleError, match=rf"schema version {version!r}; this version reads 2\.1: convert"):
        Bundle.open(folder)


def test_a_bundle_of_schema_1_says_that_it_is_to_be_converted_again() -> None:
    with pytest.raises(BundleError, match=r"schema-1 was made by an older version \(schema 1\): convert"):
        Bundle.open(BUNDLES / "schema-1")


@pytest.mark.parametrize("version", ["schema-2", "schema-2.1"])
def test_a_bundle_of_schema_2_stays_readable_and_gives_its_codes(version: str) -> None:
    bundle = Bundle.open(BUNDLES / version)
    for runtime in ("golden", "onnxruntime"):
        assert check_parity(open_session(bundle, runtime), bundle.golden()).passed


def test_codes_that_cross_channels_first_as_in_older_bundles_are_fed_as_their_manifest_says() -> None:
    bundle = Bundle.open(BUNDLES / "schema-2-codes-channels-first")
    assert bundle.manifest.artifacts["onnx-codes"].border == Border("uint8", offset=128)
    assert ARTIFACTS["onnx-codes"].border == Border("uint8", offset=128, layout="NHWC")
    assert check_parity(open_session(bundle, "onnxruntime-codes"), bundle.golden()).passed
    (candidate,) = bundle_candidates(bundle, runtimes=None, threads=[1])
    assert (candidate.border, candidate.description) == (
        Border("uint8", offset=128),
        "the integer function, uint8 codes in and out",
    )
    (model,) = bundle_models(bundle).values()
    assert model.layout == "NCHW"


def test_a_minor_version_to_come_is_read_and_what_it_adds_ignored(edit: Edit) -> None:
    def later(values: Any) -> None:
        values.update(schema_version="2.7", colour="red")
        values["inputs"][0].update(unit="m")
        values["artifacts"]["onnx"].update(speed=1)

    assert Bundle.open(edit(later)).manifest.schema_version == "2.7"


@pytest.mark.parametrize("content", ["", "{", "\x00\x01", "nonsense", "[" * 100_000, '{"a": NaN}', '{"a": 1, "a": 1}'])
def test_a_manifest_that_is_no_json_is_damaged(content: str, damaged: Path) -> None:
    (damaged / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        Bundle.open(damaged)


def _nested(depth: int) -> list[Any]:
    """Lists within each other, deeper than what writes them again can follow."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_manifest_that_is_no_text_is_damaged(damaged: Path) -> None:
    (damaged / "manifest.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BundleError, match=r"manifest.json is damaged"):
        Bundle.open(damaged)


def test_a_manifest_beyond_4_mib_is_not_read(edit: Edit) -> None:
    with pytest.raises(BundleError, match=r"manifest.json has 4,\d+,\d+ bytes, and at most 4,194,304 are read"):
        Bundle.open(edit(lambda values: values.update(details={"long": "x" * (4 << 20)})))


def test_a_changed_manifest_is_refused_by_its_own_hash(damaged: Path) -> None:
    path = damaged / "manifest.json"
    path.write_text(path.read_text().replace('"platform"', '"platf0rm"'))
    with pytest.raises(BundleError, match=r"manifest.json is not what manifest.sha256 says: one was changed"):
        Bundle.open(damaged)


def test_a_manifest_without_its_hash_is_incomplete(damaged: Path) -> None:
    (damaged / "manifest.sha256").unlink()
    with pytest.raises(BundleError, match=r"has no manifest.sha256: it is incomplete, copy or convert it again"):
        Bundle.open(damaged)


def test_sha256sum_can_check_the_manifest(small_bundle: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=small_bundle, capture_output=True, check=True)
    assert done.stdout == b"manifest.json: OK\n"


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_folder_without_a_manifest_is_no_bundle(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "folder")
    with pytest.raises(BundleError, match=r"folder is no bundle \(it has no manifest.json\): make one with"):
        Bundle.open(tmp_path / "folder")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("files"),
        lambda values: values.pop("inputs"),
        lambda values: values.update(inputs=[]),
        lambda values: values.update(outputs=values["outputs"] * 2),
        lambda values: values.update(name="a\x1b[31m"),
        lambda values: values.update(name="x" * 201),
        lambda values: values.update(golden_sha256="0" * 63),
        lambda values: values.update(details=[]),
        lambda values: values["details"].update(deep=_nested(500)),
        lambda values: values.update(files=[]),
        lambda values: values.update(files={"stage2.pte": {"sha256": "0"}}),
        lambda values: values.update(files={"stage2.pte": {"sha256": 0, "size_bytes": 0}}),
        lambda values: values.update(files={"stage2.pte": {"sha256": "0" * 64, "size_bytes": -1}}),
        lambda values: values.update(artifacts=[]),
        lambda values: values.update(artifacts=None),
        lambda values: values["artifacts"].pop("onnx"),
        lambda values: values["artifacts"]["onnx"].update(exact=1),
        lambda values: values["artifacts"]["onnx"].update(border={"dtype": "int4", "offset": 0, "layout": "NCHW"}),
        lambda values: values["artifacts"]["onnx"].update(border={"dtype": "uint8", "offset": 0, "layout": "NCHW"}),
        lambda values: values["artifacts"]["onnx"].update(settings={"a": "\u202e"}),
        lambda values: values["inputs"][0].update(shape=[1, 4, 16]),
        lambda values: values["inputs"][0].update(shape=[2, 4, 16, 24]),
        lambda values: values["inputs"][0].update(shape=[1, 4, 16, "24"]),
        lambda values: values["inputs"][0].update(shape=[1, 4, 2**20, 2**20]),
        lambda values: values["inputs"][0].update(kind="pixels"),
        lambda values: values["outputs"][0].update(scale="small"),
        lambda values: values["outputs"][0].update(scale=0.0),
        lambda values: values["outputs"][0].update(scale=-1.0),
        lambda values: values["outputs"][0].update(scale=0.1),
        lambda values: values["outputs"][0].update(scale=1e300),
        lambda values: values["outputs"][0].update(zero_point=None),
        lambda values: values["outputs"][0].update(zero_point=1000),
        lambda values: values["outputs"][0].update(zero_point=True),
        lambda values: values["outputs"][0].pop("scale"),
        lambda values: values["proof"].update(nudges={"a": "b"}),
        lambda values: values["proof"].update(rules="all"),
        lambda values: values["coverage"]["onnx"].update(int8={"conv": 1.5}),
        lambda values: values["versions"].update(torch="\x07"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_damaged(change: Callable[[Any], object], edit: Edit) -> None:
    with pytest.raises(BundleError, match=r"manifest.json is damaged .*: convert the checkpoint again"):
        Bundle.open(edit(change))


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../b", "", "C:/x", "a\\b", "..", ".", "a//b", "a\x00b", "a\nb", "\ud800"]
)
@pytest.mark.parametrize("field", ["files", "artifacts"])
def test_a_path_out_of_the_bundle_is_refused_when_it_is_opened(field: str, path: str, edit: Edit) -> None:
    def change(values: Any) -> None:
        if field == "files":
            values["files"][path] = {"sha256": "0" * 64, "size_bytes": 1}
        else:
            values["artifacts"]["onnx"]["file"] = path

    with pytest.raises(BundleError, match=r"which is not inside of the bundle|not Unicode text"):
        Bundle.open(edit(change))


# the manifest against the function and the golden codes, where every hash is forged


def _one_bit(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(1), dtype=np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["outputs"][0].update(scale=_one_bit(values["outputs"][0]["scale"])),
        lambda values: values["inputs"][0].update(scale=_one_bit(values["inputs"][0]["scale"])),
        lambda values: values["inputs"][0].update(zero_point=values["inputs"][0]["zero_point"] ^ 1),
        lambda values: values["inputs"][0].update(name="pixels"),
        lambda values: values["inputs"][0].update(shape=[1, 8, 16, 24]),
        lambda values: values["outputs"][1].update(shape=[1, 8, 8, 24]),
        lambda values: values["outputs"].reverse(),
    ],
)
def test_a_manifest_of_another_function_is_refused_to_the_last_bit(change: Callable[[Any], object], edit: Edit) -> None:
    with pytest.raises(BundleError, match=r"`(inputs|outputs)` of its manifest are not those of its function.npz"):
        Bundle.open(edit(change))


def test_a_golden_hash_of_other_codes_is_refused(edit: Edit) -> None:
    with pytest.raises(BundleError, match=r"golden.npz holds other codes than those of `golden_sha256`"):
        Bundle.open(edit(lambda values: values.update(golden_sha256="0" * 64)))


def test_the_function_of_another_bundle_is_refused(
    damaged: Path, other_bundle: Path, forge: Callable[..., None]
) -> None:
    shutil.copy(other_bundle / "function.npz", damaged)
    forge(damaged, files=["function.npz"])
    with pytest.raises(BundleError, match=r"of its manifest are not those of its function.npz"):
        Bundle.open(damaged)


@pytest.mark.parametrize("name", ["golden/input-0.i8", "golden/output-1.i8"])
def test_a_changed_code_of_a_raw_golden_file_is_found_by_whoever_reads_it(name: str, damaged: Path) -> None:
    content = bytearray((damaged / name).read_bytes())
    content[5] ^= 1
    (damaged / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} has SHA-256 \w+\.\.\., the manifest says"):
        Bundle.open(damaged).read(name)


# contents that their hash does not save


def _golden(folder: Path, forge: Callable[..., None], **arrays: NDArray[Any] | None) -> Path:
    """Replace arrays of the golden file; None takes one away."""
    with np.load(folder / "golden.npz") as stored:
        whole = {**stored, **{name.replace("_", "/"): array for name, array in arrays.items()}}
    np.savez(folder / "golden.npz", **{name: array for name, array in whole.items() if array is not None})
    forge(folder, files=["golden.npz"])
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("input_features", lambda x: x[..., :-2], r"int8 \[7, 4, 16, 22\] as `input/features`, not int8 \[N,4,16,24\]"),
        ("input_features", lambda x: x.astype(np.float32), "float32 .* as `input/features`"),
        ("output_y1", lambda x: x[:1], "holds different numbers of inputs and outputs"),
        ("output_y2", lambda x: x.astype(np.int16), "int16 .* as `output/y2`"),
        ("output_y2", lambda x: None, "nothing as `output/y2`"),
        ("output_y1", lambda x: x ^ 1, "other codes than those of `golden_sha256`"),
        ("float_y1", lambda x: x.astype(np.float64), "float64 .* as `float/y1`, not float16"),
    ],
)
def test_golden_codes_of_another_shape_type_or_number_are_refused(
    name: str, change: Callable[[Any], Any], message: str, damaged: Path, forge: Callable[..., None]
) -> None:
    with np.load(damaged / "golden.npz") as stored:
        array = stored[name.replace("_", "/")]
    with pytest.raises(BundleError, match=rf"golden.npz.* {message}"):
        Bundle.open(_golden(damaged, forge, **{name: change(array)}))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"\x80\x04K\x01."], ids=["empty", "cut", "pickle"])
@pytest.mark.parametrize("name", ["golden.npz", "function.npz"])
def test_an_archive_that_is_none_is_refused(name: str, data: bytes, damaged: Path, forge: Callable[..., None]) -> None:
    (damaged / name).write_bytes(data)
    forge(damaged, files=[name])
    with pytest.raises(BundleError, match=name):
        Bundle.open(damaged)


def test_the_golden_hash_of_the_manifest_is_that_of_the_golden_codes(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    assert codes_sha256(*bundle.golden().outputs.values()) == bundle.manifest.golden_sha256


def test_the_manifest_conforms_to_its_published_schema(small_bundle: Path, apple_bundle: Path) -> None:
    schema = json.loads(files("litehrnet_stage2.reference.contract").joinpath("manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for folder in (small_bundle, apple_bundle, BUNDLES / "schema-2", BUNDLES / "schema-2.1"):
        jsonschema.validate(json.loads((folder / "manifest.json").read_text()), schema)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("inputs"),
        lambda values: values.update(schema_version="3.0"),
        lambda values: values["artifacts"]["onnx"]["border"].update(layout="NCWH"),
        lambda values: values["outputs"][0].update(zero_point=128),
    ],
)
def test_the_published_schema_refuses_what_the_reader_refuses(
    change: Callable[[Any], object], small_bundle: Path
) -> None:
    schema = json.loads(files("litehrnet_stage2.reference.contract").joinpath("manifest.schema.json").read_text())
    values = json.loads((small_bundle / "manifest.json").read_text())
    change(values)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)
