"""Sessions as a library: threads, loops, memory, codes at the border."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES, RUNTIMES
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.runtime import Bundle, OutputError, check_parity, open_session
from litehrnet_stage2.runtime.program import Names, open_program

FLOATS = [name for name, row in DEVICE_RUNTIMES.items() if row.artifact and not row.artifact.border.codes]
CODES = [name for name, row in RUNTIMES.items() if row.artifact and row.artifact.border.codes]


def input_codes(bundle: Bundle) -> np.ndarray:
    spec = bundle.manifest.inputs[0]
    return Quantization(np.float32(spec.scale), spec.zero_point).quantize(bundle.golden().x)


@pytest.mark.parametrize("runtime", [*FLOATS, *CODES])
def test_eight_threads_may_share_a_session(codes_bundle: Bundle, runtime: str) -> None:
    session, golden = open_session(codes_bundle, runtime), codes_bundle.golden()
    start = threading.Barrier(8)

    def work(index: int) -> bool:
        start.wait()
        ordered = np.roll(np.arange(len(golden.x)), index)
        y1, y2 = session.run_codes(np.concatenate([golden.x[ordered]] * 5))
        return bool((y1 == np.concatenate([golden.outputs["y1"][ordered]] * 5)).all()) and bool(
            (y2 == np.concatenate([golden.outputs["y2"][ordered]] * 5)).all()
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.mark.parametrize("runtime", FLOATS)
def test_eight_threads_may_have_a_session_each(codes_bundle: Bundle, runtime: str) -> None:
    golden = codes_bundle.golden()

    def work(_: int) -> bool:
        session = open_session(codes_bundle, runtime)
        return all(check_parity(session, golden).passed for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


COUNT_THREADS = """
import os, sys
from pathlib import Path
from litehrnet_stage2.runtime import Bundle, open_session
from litehrnet_stage2.runtime.program import library_version

def tasks(): return len(os.listdir("/proc/self/task"))

bundle, library, wanted = Bundle.open(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
library_version(library)
if library == "executorch":  # its pool as it comes has a thread for each core
    from executorch.extension.pybindings import _C
    _C._unsafe_reset_threadpool(1)
before = tasks()
session = open_session(bundle, library, threads=wanted)
session.run(bundle.golden().x)
print(tasks() - before)
"""


@pytest.mark.parametrize("runtime", FLOATS)
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_session_starts_as_many_threads_as_it_is_told(
    codes_bundle: Bundle, runtime: str, threads: int, python
) -> None:
    done = python(COUNT_THREADS, codes_bundle.folder, runtime, str(threads))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == threads - 1  # the caller's own works too


@pytest.mark.parametrize("runtime", FLOATS)
def test_codes_do_not_depend_on_the_number_of_threads(codes_bundle: Bundle, runtime: str) -> None:
    golden = codes_bundle.golden()
    for threads in (1, 2, 3):
        assert check_parity(open_session(codes_bundle, runtime, threads=threads), golden).passed


ALTERNATE = """
import sys
from pathlib import Path
from litehrnet_stage2.runtime import Bundle, check_parity, open_session

bundle = Bundle.open(Path(sys.argv[1]))
sessions = [open_session(bundle, "executorch", threads=threads) for threads in (1, 2, 1, 3)]
for session in (*sessions, *reversed(sessions)):
    assert check_parity(session, bundle.golden()).passed
assert len({session.program.inner.age for session in sessions}) == 4  # each on the pool that was made for it
"""


def test_sessions_of_different_threads_may_alternate(codes_bundle: Bundle, python) -> None:
    """A program on a pool that is gone runs in memory that is freed: often nothing happens, or it hangs, or crashes."""
    done = python(ALTERNATE, codes_bundle.folder)
    assert done.returncode == 0, done.stderr


GROWTH = """
import sys
from pathlib import Path
import numpy as np
from litehrnet_stage2.runtime import Bundle, open_session

def resident_kib():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])

bundle, runtime, runs = Bundle.open(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
session, x = open_session(bundle, runtime), bundle.golden().x[:1]
for _ in range(runs // 4): session.run(x)
before = resident_kib()
for _ in range(runs): session.run(x)
print(resident_kib() - before)
"""


@pytest.mark.parametrize("runtime", [*FLOATS, *CODES])
def test_memory_does_not_grow_over_runs(codes_bundle: Bundle, runtime: str, python) -> None:
    """One kept output of the small network (9 KiB) a run would make 27 MiB here."""
    done = python(GROWTH, codes_bundle.folder, runtime, "3000")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048


@pytest.mark.parametrize("runtime", ["golden", *FLOATS, *CODES])
def test_run_fills_the_arrays_it_is_given(codes_bundle: Bundle, runtime: str) -> None:
    session, x = open_session(codes_bundle, runtime), codes_bundle.golden().x
    due = session.run(x)
    out = tuple(np.full_like(y, np.nan) for y in due)
    given = session.run(x, out=out)
    assert all(a is b for a, b in zip(given, out, strict=True))
    assert all((a == b).all() for a, b in zip(out, due, strict=True))


def test_results_of_one_run_survive_the_next(codes_bundle: Bundle) -> None:
    x = codes_bundle.golden().x
    for runtime in (*FLOATS, *CODES):
        session = open_session(codes_bundle, runtime)
        first = session.run(x[:1])
        kept = [y.copy() for y in first]
        session.run(x[3:4])
        assert all((a == b).all() for a, b in zip(first, kept, strict=True))


def test_arrays_of_a_wrong_shape_or_dtype_are_refused(codes_bundle: Bundle) -> None:
    session, x = open_session(codes_bundle, "onnxruntime"), codes_bundle.golden().x
    y1, y2 = session.run(x)
    with pytest.raises(ValueError, match=r"`out` for y2 is float32 \[1, "):
        session.run(x, out=(y1, y2[:1]))
    with pytest.raises(ValueError, match="`out` for y1 is float64"):
        session.run(x, out=(y1.astype(np.float64), y2))


@pytest.mark.parametrize("runtime", CODES)
def test_codes_in_give_the_golden_codes_out(codes_bundle: Bundle, runtime: str) -> None:
    session, golden = open_session(codes_bundle, runtime), codes_bundle.golden()
    y1, y2 = session.run_on_codes(input_codes(codes_bundle))
    assert y1.dtype == y2.dtype == np.int8
    assert (y1 == golden.outputs["y1"]).all()
    assert (y2 == golden.outputs["y2"]).all()
    out = (np.zeros_like(y1), np.zeros_like(y2))
    session.run_on_codes(input_codes(codes_bundle), out=out)
    assert (out[0] == golden.outputs["y1"]).all()


@pytest.mark.parametrize("runtime", CODES)
def test_artifacts_with_codes_are_exact_on_float_features(codes_bundle: Bundle, runtime: str) -> None:
    assert check_parity(open_session(codes_bundle, runtime), codes_bundle.golden()).passed


def test_floats_are_refused_where_codes_are_due(codes_bundle: Bundle) -> None:
    session = open_session(codes_bundle, "onnxruntime-codes")
    with pytest.raises(ValueError, match="must be int8, but are float32"):
        session.run_on_codes(codes_bundle.golden().x)  # type: ignore[arg-type]


def test_nothing_is_quantised_at_the_border_of_artifacts_with_codes(codes_bundle: Bundle) -> None:
    coverage = codes_bundle.manifest.coverage
    assert not any(coverage["executorch-codes"].boundary.values())
    assert coverage["executorch"].boundary == {"quantize": 1, "dequantize": 2}
    resizes = coverage["onnx"].floating["Resize"]
    assert coverage["onnx-codes"].boundary == {"QuantizeLinear": resizes, "DequantizeLinear": resizes}


@pytest.mark.parametrize("runtime", [*FLOATS, *CODES])
def test_a_batch_is_run_image_by_image(codes_bundle: Bundle, runtime: str) -> None:
    session, x = open_session(codes_bundle, runtime), codes_bundle.golden().x
    whole = session.run(x)
    single = [session.run(image[None]) for image in x]
    for i, y in enumerate(whole):
        assert (y == np.concatenate([one[i] for one in single])).all()


def test_a_program_with_one_output_is_refused(codes_bundle: Bundle, tmp_path) -> None:
    import onnx

    model = onnx.load_from_string(codes_bundle.read(codes_bundle.artifact("onnx")))
    del model.graph.output[1]
    names = Names(("features",), ("y1", "y2"))
    with pytest.raises(OutputError, match=r"the .onnx maps features to y1, not features to y1, y2"):
        open_program("onnxruntime", model.SerializeToString(), threads=1, exact=True, names=names)
