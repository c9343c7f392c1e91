"""Sessions: one protocol over every runtime, inputs checked, outputs held to their grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.reference.contract.manifest import TensorSpec
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.runtime import Bundle, OutputError, Session, open_session
from litehrnet_stage2.runtime.session import to_codes

NAMES = ("golden", "executorch", "onnxruntime")


@pytest.fixture(scope="module")
def sessions(small_bundle: Path) -> dict[str, Session]:
    return {name: open_session(small_bundle, name) for name in NAMES}


@pytest.fixture(params=NAMES)
def session(request: pytest.FixtureRequest, sessions: dict[str, Session]) -> Session:
    return sessions[request.param]


@pytest.fixture(scope="module")
def x(small_bundle: Path) -> NDArray[np.float32]:
    return Bundle.open(small_bundle).golden().x[-3:]


def test_it_runs_a_batch_of_floats_to_floats_of_the_manifests_shapes(session: Session, x: NDArray[np.float32]) -> None:
    y1, y2 = session.run(x)
    assert (y1.shape, y2.shape) == ((3, 4, 16, 24), (3, 8, 8, 12))
    assert (y1.dtype, y2.dtype) == (np.float32, np.float32)


def test_images_of_a_batch_are_what_they_are_alone(session: Session, x: NDArray[np.float32]) -> None:
    """A runtime that hands out views of its own memory would give the last image three times."""
    for index in range(3):
        for batch, alone in zip(session.run(x), session.run(x[index : index + 1]), strict=True):
            np.testing.assert_array_equal(batch[index], alone[0])


def test_outputs_kept_are_not_overwritten_by_the_next_run(session: Session, x: NDArray[np.float32]) -> None:
    kept = session.run(x[:1])
    copies = [y.copy() for y in kept]
    session.run(x[1:])
    for y, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(y, copy)


def test_codes_are_the_floats_on_the_output_grid(session: Session, x: NDArray[np.float32]) -> None:
    for codes, y, spec in zip(session.run_codes(x), session.run(x), session.info.outputs, strict=True):
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(Quantization(np.float32(spec.scale), spec.zero_point).dequantize(codes), y)


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: x[..., ::-1].copy()[..., ::-1],
        lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    ],
    ids=["channels last", "strided", "backwards", "read-only"],
)
def test_the_layout_of_the_features_in_memory_does_not_matter(
    lay_out: Callable[[NDArray[np.float32]], NDArray[np.float32]], session: Session, x: NDArray[np.float32]
) -> None:
    for found, due in zip(session.run_codes(lay_out(x)), session.run_codes(x), strict=True):
        np.testing.assert_array_equal(found, due)


def test_features_are_not_written_to(session: Session, x: NDArray[np.float32]) -> None:
    copy = x.copy()
    session.run(copy)
    np.testing.assert_array_equal(copy, x)


def test_the_largest_floats_saturate_alike(sessions: dict[str, Session]) -> None:
    for value in (3.4e38, -3.4e38):
        features = np.full((1, 4, 16, 24), value, np.float32)
        found = {name: [y.tobytes() for y in session.run_codes(features)] for name, session in sessions.items()}
        assert found["golden"] == found["executorch"] == found["onnxruntime"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"must have shape \[N,4,16,24\], N >= 1, but have \[4, 16, 24\]"),
        (lambda x: x[:0], r"must have shape \[N,4,16,24\], N >= 1, but have \[0, 4, 16, 24\]"),
        (lambda x: x[:, :3], r"but have \[3, 3, 16, 24\]"),
        (lambda x: x[..., :22], r"but have \[3, 4, 16, 22\]"),
        (lambda x: x.astype(np.float64), r"must be float32, but are float64: .*astype\('float32'\)"),
        (lambda x: x.astype(np.float16), "must be float32, but are float16"),
        (lambda x: x.astype(np.int8), "must be float32, but are int8"),
        (lambda x: np.where(np.arange(24) == 3, np.float32(np.nan), x), "hold 192 values that are NaN or infinite"),
        (lambda x: np.where(np.arange(24) == 3, np.float32(-np.inf), x), "hold 192 values that are NaN or infinite"),
    ],
)
def test_features_of_a_wrong_shape_dtype_or_value_are_refused(
    change: Callable[[Any], Any], message: str, session: Session, x: NDArray[np.float32]
) -> None:
    with pytest.raises(ValueError, match=message):
        session.run(change(x))


def test_info_says_what_runs(session: Session, small_bundle: Path) -> None:
    manifest, info = Bundle.open(small_bundle).manifest, session.info
    assert info.runtime in NAMES
    assert info.version[0].isdigit()
    assert info.sha256 == manifest.files[info.artifact].sha256
    assert (info.inputs, info.outputs, info.threads) == (manifest.inputs, manifest.outputs, 1)


@pytest.mark.parametrize("name", NAMES)
def test_more_threads_give_the_same_codes(name: str, small_bundle: Path, x: NDArray[np.float32]) -> None:
    one, two = (open_session(small_bundle, name, threads=threads).run_codes(x) for threads in (1, 2))
    for found, due in zip(two, one, strict=True):
        np.testing.assert_array_equal(found, due)


def test_codes_go_in_and_come_out_of_every_runtime(session: Session, small_bundle: Path) -> None:
    golden = Bundle.open(small_bundle).golden()
    for found, due in zip(session.run_on_codes(*golden.inputs.values()), golden.outputs.values(), strict=True):
        np.testing.assert_array_equal(found, due)


def test_a_wrong_number_of_inputs_is_answered_with_their_names(session: Session, x: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="2 inputs were given, where the function has 1: features"):
        session.run(x, x)


def test_an_unknown_runtime_is_answered_with_the_known_ones(small_bundle: Path) -> None:
    with pytest.raises(ValueError, match="unknown runtime 'tflite': the runtimes are golden, executorch, "):
        open_session(small_bundle, "tflite")


def test_a_thread_count_below_one_is_refused(small_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"`threads` \(=0\) must be at least 1"):
        open_session(small_bundle, "golden", threads=0)


SPEC = TensorSpec(name="y1", shape=(1, 1, 1, 3), scale=float(np.float32(0.1)), zero_point=-2)


def test_floats_on_the_grid_are_codes() -> None:
    y = Quantization(np.float32(0.1), -2).dequantize(np.array([-128, 0, 127], np.int8)).reshape(1, 1, 1, 3)
    assert to_codes(y, SPEC).ravel().tolist() == [-128, 0, 127]


@pytest.mark.parametrize("value", [0.05, 0.001, 100.0, float("nan"), float("inf")])
def test_floats_off_the_grid_are_another_function(value: float) -> None:
    with pytest.raises(OutputError, match=r"`y1` is .* steps off its grid of scale 0\.1: the artifact"):
        to_codes(np.array([0, value, 0], np.float32).reshape(1, 1, 1, 3), SPEC)


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(OutputError, match=r"`y1` has shape \[1, 1, 3, 1\], the manifest says \[1, 1, 1, 3\]"):
        to_codes(np.zeros((1, 1, 3, 1), np.float32), SPEC)
