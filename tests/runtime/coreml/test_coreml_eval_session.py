"""The evaluator as a runtime: equal codes, and nothing evaluated that is not what was converted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coremltools.proto import Model_pb2

from litehrnet_stage2.reference.contract.manifest import BundleError
from litehrnet_stage2.runtime import (
    Bundle,
    RuntimeUnavailableError,
    check_fidelity,
    check_parity,
    expected,
    open_session,
)

PACKAGE = "stage2.mlpackage"
Tamper = Callable[[Path], None]
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def flip_a_weight(package: Path) -> None:
    """Flip the sign bit of the first stored int8 weight of the first convolution."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    constant = next(operation for operation in block.operations if operation.type == "constexpr_affine_dequantize")
    record = constant.attributes["quantized_data"].blobFileValue.offset
    content = bytearray((package / WEIGHTS).read_bytes())
    start = int.from_bytes(content[record + 16 : record + 24], "little")  # behind sentinel, type and size
    content[start] ^= 0x80
    (package / WEIGHTS).write_bytes(content)


def rename_an_operator(package: Path) -> None:
    """Have the program's first addition be something that no operator set has."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    next(operation for operation in block.operations if operation.type == "add").type = "frobnicate"
    (package / MODEL).write_bytes(model.SerializeToString())


def cut_the_weight_file_short(package: Path) -> None:
    """Leave the first half."""
    content = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(content[: len(content) // 2])


@pytest.fixture
def copy(apple_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be tampered with."""
    return Path(shutil.copytree(apple_bundle, tmp_path / "bundle"))


def test_every_golden_code_is_equal(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    result = check_parity(open_session(bundle, "coreml-eval"), bundle.golden())
    assert (result.images, result.passed, result.codes_sha256) == (7, True, bundle.manifest.golden_sha256)


def test_codes_of_unseen_inputs_are_equal(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    unseen = 2 * np.random.default_rng(99).standard_normal((4, 4, 16, 24)).astype(np.float32)
    due = expected(bundle.function(), unseen)
    assert check_parity(open_session(bundle, "coreml-eval"), due).passed


def test_the_neural_engines_package_runs_with_float32_at_the_border_and_float16_within(apple_bundle: Path) -> None:
    bundle = Bundle.open(apple_bundle)
    session = open_session(bundle, "coreml-eval-ane")
    y1, y2 = session.run(bundle.golden().x[:1])
    assert (y1.dtype, y2.dtype) == (np.float32, np.float32)
    for y in (y1, y2):
        np.testing.assert_array_equal(y, y.astype(np.float16).astype(np.float32))
    result = check_fidelity(session, bundle.golden())
    assert (result.images, result.passed) == (2, True)


def test_the_info_names_the_folder_and_hashes_all_of_it(
    apple_bundle: Path, copy: Path, forge: Callable[..., None]
) -> None:
    info = open_session(apple_bundle, "coreml-eval").info
    assert (info.runtime, info.artifact, len(info.sha256)) == ("coreml-eval", PACKAGE, 64)
    flip_a_weight(copy / PACKAGE)
    forge(copy, files=tuple(Bundle.open(copy).manifest.files))
    assert open_session(copy, "coreml-eval").info.sha256 != info.sha256


@pytest.mark.parametrize("tamper", [flip_a_weight, rename_an_operator, cut_the_weight_file_short])
def test_a_changed_package_is_refused_by_its_hash(copy: Path, tamper: Tamper) -> None:
    tamper(copy / PACKAGE)
    with pytest.raises(BundleError, match="it was changed or cut short, copy or convert the bundle again"):
        open_session(copy, "coreml-eval")


def test_a_file_that_the_manifest_does_not_know_is_refused(copy: Path) -> None:
    (copy / PACKAGE / "Data" / "extra").write_bytes(b"")
    with pytest.raises(BundleError, match=r"stage2.mlpackage/Data/extra', which its manifest does not know"):
        open_session(copy, "coreml-eval")


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / PACKAGE / WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"weight.bin cannot be read .* the bundle is incomplete"):
        open_session(copy, "coreml-eval")


def test_a_package_behind_a_link_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / PACKAGE).rename(tmp_path / "elsewhere")
    (copy / PACKAGE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link, which is not followed"):
        open_session(copy, "coreml-eval")


def test_a_flipped_weight_shows_in_the_codes_where_the_manifest_is_forged(
    copy: Path, forge: Callable[..., None]
) -> None:
    flip_a_weight(copy / PACKAGE)
    forge(copy, files=tuple(Bundle.open(copy).manifest.files))
    bundle = Bundle.open(copy)
    result = check_parity(open_session(bundle, "coreml-eval"), bundle.golden())
    assert not result.passed
    assert all(output.mismatches for output in result.outputs.values())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (rename_an_operator, r"refuses it \(operator 'frobnicate' \(output .*\) is not one that is"),
        (cut_the_weight_file_short, r"refuses it \(the constant .* of stage2.mlpackage/Data/.*; it is damaged or cut"),
    ],
)
def test_a_broken_package_is_named_where_the_manifest_is_forged(
    copy: Path, tamper: Tamper, message: str, forge: Callable[..., None]
) -> None:
    tamper(copy / PACKAGE)
    forge(copy, files=tuple(Bundle.open(copy).manifest.files))
    with pytest.raises(BundleError, match=message):
        open_session(copy, "coreml-eval")


def test_a_package_with_other_names_is_refused(copy: Path, forge: Callable[..., None]) -> None:
    model = Model_pb2.Model()
    path = copy / PACKAGE / MODEL
    model.ParseFromString(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    for operation in block.operations:
        if operation.outputs[0].name == "y2":
            operation.outputs[0].name = "logits"
    block.outputs[:] = ["y1", "logits"]
    model.description.output[1].name = "logits"
    path.write_bytes(model.SerializeToString())
    forge(copy, files=tuple(Bundle.open(copy).manifest.files))
    with pytest.raises(BundleError, match=r"the package maps features to y1, logits, not features to y1, y2"):
        open_session(copy, "coreml-eval")


def test_opening_leaves_nothing_in_the_temporary_folder(
    apple_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_session(apple_bundle, "coreml-eval")
    assert not list(tmp_path.iterdir())


def test_without_coremltools_the_runtime_says_what_to_install(
    apple_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install -e '.\[convert\]'"):
        open_session(apple_bundle, "coreml-eval")


@pytest.mark.parametrize("runtime", ["coreml", "coreml-ane"])
def test_core_ml_itself_says_what_it_needs_and_what_to_run_there(
    apple_bundle: Path, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(
        RuntimeUnavailableError,
        match=rf"needs a Mac with macOS 14 or later, and this is Linux: .* run `stage2 parity .* --runtime {runtime}`",
    ):
        open_session(apple_bundle, runtime)


def test_a_session_imports_neither_torch_nor_coremltools(
    apple_bundle: Path, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(
        "import sys; from pathlib import Path\n"
        "from litehrnet_stage2.runtime import Bundle, check_parity, open_session\n"
        "bundle = Bundle.open(Path(sys.argv[1]))\n"
        "result = check_parity(open_session(bundle, 'coreml-eval'), bundle.golden())\n"
        "print(result.passed, sorted({'torch', 'coremltools'} & set(sys.modules)))",
        apple_bundle,
    )
    assert done.stdout == "True []\n"
