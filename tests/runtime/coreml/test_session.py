"""The evaluator as a runtime: equal codes, and nothing evaluated that is not what was converted."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.reference.manifest import BundleError
from litehrnet_stage2.runtime import (
    Bundle,
    RuntimeUnavailableError,
    check_fidelity,
    check_parity,
    expected,
    open_session,
)


def _sibling(name: str):  # type: ignore[no-untyped-def]  # a module
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tampering = _sibling("tampering")
PACKAGE = "stage2.mlpackage"
Tamper = Callable[[Path], None]


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


def test_the_info_names_the_folder_and_hashes_all_of_it(apple_bundle: Path, copy: Path) -> None:
    info = open_session(apple_bundle, "coreml-eval").info
    assert (info.runtime, info.artifact, len(info.sha256)) == ("coreml-eval", PACKAGE, 64)
    tampering.flip_a_weight(copy / PACKAGE)
    tampering.forge_manifest(copy)
    assert open_session(copy, "coreml-eval").info.sha256 != info.sha256


@pytest.mark.parametrize(
    "tamper", [tampering.flip_a_weight, tampering.rename_an_operator, tampering.cut_the_weight_file_short]
)
def test_a_changed_package_is_refused_by_its_hash(copy: Path, tamper: Tamper) -> None:
    tamper(copy / PACKAGE)
    with pytest.raises(BundleError, match="it was changed or cut short, copy or convert the bundle again"):
        open_session(copy, "coreml-eval")


def test_a_file_that_the_manifest_does_not_know_is_refused(copy: Path) -> None:
    (copy / PACKAGE / "Data" / "extra").write_bytes(b"")
    with pytest.raises(BundleError, match=r"stage2.mlpackage/Data/extra, which its manifest does not know"):
        open_session(copy, "coreml-eval")


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / PACKAGE / tampering.WEIGHTS).unlink()
    with pytest.raises(BundleError, match=r"weight.bin cannot be read .* the bundle is incomplete"):
        open_session(copy, "coreml-eval")


def test_a_package_behind_a_link_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / PACKAGE).rename(tmp_path / "elsewhere")
    (copy / PACKAGE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link, which is not followed"):
        open_session(copy, "coreml-eval")


def test_a_flipped_weight_shows_in_the_codes_where_the_manifest_is_forged(copy: Path) -> None:
    tampering.flip_a_weight(copy / PACKAGE)
    tampering.forge_manifest(copy)
    bundle = Bundle.open(copy)
    result = check_parity(open_session(bundle, "coreml-eval"), bundle.golden())
    assert not result.passed
    assert all(output.mismatches for output in result.outputs.values())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (tampering.rename_an_operator, r"cannot be evaluated: operator 'frobnicate' \(output .*\) is not one that is"),
        (tampering.cut_the_weight_file_short, r"cannot be evaluated: stage2.mlpackage/Data/.*damaged or cut short"),
    ],
)
def test_a_broken_package_is_named_where_the_manifest_is_forged(copy: Path, tamper: Tamper, message: str) -> None:
    tamper(copy / PACKAGE)
    tampering.forge_manifest(copy)
    with pytest.raises(BundleError, match=message):
        open_session(copy, "coreml-eval")


def test_a_package_with_other_names_is_refused(copy: Path) -> None:
    model = tampering.Model_pb2.Model()
    path = copy / PACKAGE / tampering.MODEL
    model.ParseFromString(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    for operation in block.operations:
        if operation.outputs[0].name == "y2":
            operation.outputs[0].name = "logits"
    block.outputs[:] = ["y1", "logits"]
    model.description.output[1].name = "logits"
    path.write_bytes(model.SerializeToString())
    tampering.forge_manifest(copy)
    with pytest.raises(BundleError, match=r"maps \['features'\] to \['logits', 'y1'\], not features to y1 and y2"):
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
    monkeypatch.setitem(__import__("sys").modules, "coremltools", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'litehrnet-stage2\[convert\]'"):
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


def test_a_session_imports_neither_torch_nor_coremltools(apple_bundle: Path, python) -> None:
    done = python(
        "import sys; from litehrnet_stage2.runtime import Bundle, check_parity, open_session; from pathlib import Path\n"
        "bundle = Bundle.open(Path(sys.argv[1])); result = check_parity(open_session(bundle, 'coreml-eval'), bundle.golden())\n"
        "print(result.passed, sorted({'torch', 'coremltools'} & set(sys.modules)))",
        apple_bundle,
    )
    assert done.stdout == "True []\n"
