"""Files on drawn content: what was written comes back, and a changed or cut file is read alike or refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from litehrnet_stage2.reference.array_files import ArrayFileError, read_npy, read_npz
from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse

DTYPES = st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_])
ARRAYS = DTYPES.flatmap(lambda dtype: drawn.arrays(dtype, drawn.array_shapes(min_dims=0, max_dims=4, max_side=4)))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(10**15), 10**15)


@dataclass(frozen=True)
class Part:
    name: str
    size: int
    weight: float | None


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    good: bool


PARTS = st.builds(Part, TEXT, NUMBERS, st.none() | st.floats(-1e6, 1e6))
WHOLES = st.builds(Whole, st.lists(PARTS, max_size=3).map(tuple), st.booleans())
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def saved(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


@given(ARRAYS, ARRAYS)
def test_arrays_that_numpy_saved_come_back_to_the_bit(a: np.ndarray, b: np.ndarray) -> None:
    found = read_npz(saved(a=a, b=b))
    for name, array in {"a": a, "b": b}.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


@given(ARRAYS, st.data())
def test_a_changed_byte_of_an_array_is_read_or_refused_by_name(array: np.ndarray, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ArrayFileError):
        assert read_npy(bytes(content)).nbytes <= len(content)


@given(ARRAYS, st.data())
def test_a_cut_archive_is_refused_by_name(array: np.ndarray, data: st.DataObject) -> None:
    content = saved(a=array)
    try:
        read_npz(content[: data.draw(st.integers(0, len(content) - 1))])
    except ArrayFileError:
        return
    raise AssertionError("an archive without its end was read")


@given(WHOLES)
def test_an_object_written_as_json_comes_back(whole: Whole) -> None:
    assert decode(Whole, parse(json.dumps(dataclasses.asdict(whole)))) == whole


@given(PLAIN)
def test_any_other_json_is_decoded_or_refused_by_name(value: object) -> None:
    with contextlib.suppress(CodecError):
        assert isinstance(decode(Whole, parse(json.dumps(value))), Whole)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_json_are_refused_by_name(content: bytes) -> None:
    with contextlib.suppress(CodecError):
        parse(content)
