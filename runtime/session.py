"""Sessions: one way to run the integer function, whatever runtime does it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import RUNTIMES, Border
from litehrnet_stage2.reference.contract.manifest import FUNCTION, BundleError, TensorSpec
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.quantization import Codes
from litehrnet_stage2.runtime.border import BorderProgram, to_codes
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.program import (
    Array,
    Arrays,
    Floats,
    Names,
    OutputError,
    Program,
    RuntimeUnavailableError,
    check_system,
    library_version,
    open_program,
)
from litehrnet_stage2.runtime.trial import Request, try_first

MOST_THREADS = 256

__all__ = ["OutputError", "RuntimeUnavailableError", "Session", "SessionInfo", "open_session", "to_codes"]


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """What runs.

    Attributes:
        runtime: its name here.
        version: of the runtime.
        artifact: the file in the bundle, and its `sha256`.
        threads: that the runtime was told to use.
        inputs, outputs: names, shapes (batch 1), quantisation, in order.
    """

    runtime: str
    version: str
    artifact: str
    sha256: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Session:
    """An opened artifact. Threads may share it: what they ask is done one after another.

    A batch is run image by image where the artifact is made for one, as a phone has it. For work in parallel, give
    each thread a session of its own. A `with` statement closes it; one that runs in this process need not be closed.
    """

    def __init__(self, info: SessionInfo, program: BorderProgram) -> None:
        self.info = info
        self.program = program
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what the session left on disk."""
        self.program.close()

    def run(self, *inputs: Array, out: tuple[Floats, ...] | None = None) -> tuple[Floats, ...]:
        """Each input `[N,C,H,W]`, in the order of `info.inputs`, to each output float32 `[N,C',H',W']`.

        Args:
            inputs: float32, or uint8 where the input takes pixels; any batch.
            out: arrays of the outputs' shapes to fill and return, for callers that loop.

        Raises:
            ValueError: a wrong number of inputs, shape, dtype, or a value that is not finite.
        """
        self.check(*inputs)
        return self._run(inputs, self.program.prepare, self.program.finish, np.float32, out)

    def run_codes(self, *inputs: Array) -> tuple[Codes, ...]:
        """Like `run`, but the int8 codes of each output.

        Raises:
            ValueError: a wrong number of inputs, shape, dtype, or a value that is not finite.
            OutputError: the runtime's floats do not lie on the output grid, or have another shape.
        """
        self.check(*inputs)
        return self._run(inputs, self.program.prepare, self.program.to_codes, np.int8, None)

    def run_on_codes(self, *codes: Codes, out: tuple[Codes, ...] | None = None) -> tuple[Codes, ...]:
        """Int8 codes `[N,C,H,W]` of each input to those of each output; an artifact of codes quantises nothing.

        Args:
            codes: any batch, quantised with `info.inputs`.
            out: arrays of the outputs' shapes to fill and return.

        Raises:
            ValueError: a wrong number of inputs, shape or dtype.
            OutputError: as `run_codes`.
        """
        self._check_arrays(codes, ("int8",))
        return self._run(codes, self.program.from_codes, self.program.to_codes, np.int8, out)

    def check(self, *inputs: Array) -> None:
        """Check real values against the artifact's inputs.

        Raises:
            ValueError: a wrong number of inputs, shape, dtype, or a value that is not finite.
        """
        self._check_arrays(inputs, ("float32",))
        for array, spec in zip(inputs, self.info.inputs, strict=True):
            if array.dtype == np.float32 and not np.isfinite(array).all():
                bad = int(np.count_nonzero(~np.isfinite(array)))
                raise InputError(f"{spec.name} hold {bad} values that are NaN or infinite: every value must be finite")

    def _check_arrays(self, arrays: Arrays, dtypes: tuple[str, ...]) -> None:
        specs = self.info.inputs
        if len(arrays) != len(specs):
            names = ", ".join(spec.name for spec in specs)
            raise InputError(f"{len(arrays)} inputs were given, where the function has {len(specs)}: {names}")
        for array, spec in zip(arrays, specs, strict=True):
            expected = spec.shape[1:]
            if array.ndim != 4 or array.shape[1:] != expected or not len(array) == len(arrays[0]) > 0:
                raise InputError(
                    f"{spec.name} must have shape [N,{','.join(map(str, expected))}], N >= 1, "
                    f"but have {list(array.shape)}"
                )
            accepted = (*dtypes, "uint8") if spec.kind == "pixels" and "float32" in dtypes else dtypes
            if array.dtype.name not in accepted:
                raise InputError(
                    f"{spec.name} must be {' or '.join(accepted)}, but are {array.dtype}: "
                    f"convert them with .astype('{accepted[-1]}')"
                )

    def _run(
        self,
        inputs: Arrays,
        prepare: Callable[..., Arrays],
        finish: Callable[[Arrays], Arrays],
        dtype: type,
        out: Arrays | None,
    ) -> Arrays:
        count = len(inputs[0])
        results = self._results(count, dtype, out)
        step = count if self.program.takes_batches else 1
        with self._lock:
            for i in range(0, count, step):
                found = finish(self.program.run(prepare(*(x[i : i + step] for x in inputs))))
                for y, result in zip(found, results, strict=True):
                    result[i : i + step] = y
        return results

    def _results(self, count: int, dtype: type, out: Arrays | None) -> Arrays:
        """New arrays for the outputs of `count` images, or `out`, checked."""
        shapes = [(count, *spec.shape[1:]) for spec in self.info.outputs]
        if out is None:
            return tuple(np.empty(shape, dtype) for shape in shapes)
        for spec, array, shape in zip(self.info.outputs, out, shapes, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"`out` for {spec.name} is {array.dtype} {list(array.shape)}: it must be "
                    f"{np.dtype(dtype)} {list(shape)}, as `run` would make it"
                )
        return out


def check_threads(threads: int) -> None:
    """Check a number of threads before a library tries to start them, and ends the process where it cannot.

    Raises:
        InputError: it is below 1, or above what any device has cores for.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise InputError(f"`threads` (={threads}) must be at least 1 and at most {MOST_THREADS}")


def open_session(bundle: Bundle | Path, runtime: str, *, threads: int = 1) -> Session:
    """Open a bundle's artifact in a runtime, its hash checked before the library sees a byte of it.

    Raises:
        ValueError: an unknown runtime or a thread count below 1.
        BundleError: the artifact is missing, not what the manifest says, or not one that the library can open.
        RuntimeUnavailableError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise InputError(f"unknown runtime {runtime!r}: the runtimes are {', '.join(RUNTIMES)}")
    check_threads(threads)
    row, opened = RUNTIMES[runtime], bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    instead = f"; `--runtime {next(iter(row.artifact.runtimes))}` runs the same file here" if row.artifact else ""
    check_system(row.library, f"stage2 parity {opened.folder} --runtime {runtime}", instead)
    file = FUNCTION if row.artifact is None else opened.artifact(row.artifact.name)
    version = library_version(row.library)
    specs = opened.manifest.inputs, opened.manifest.outputs
    names = Names(*(tuple(spec.name for spec in of) for of in specs))
    border = Border("int8") if row.artifact is None else opened.manifest.artifacts[row.artifact.name].border
    trial = Request(library=row.library, exact=row.exact, inputs=specs[0], outputs=specs[1], border=border)

    def opened_from(content: bytes | Path) -> Program:
        try:
            try_first(trial, content, sha256=opened.sha256(file), version=version)
            return open_program(row.library, content, threads=threads, exact=row.exact, names=names)
        except InputError as error:
            raise BundleError(f"{opened.folder / file} cannot be opened: {error}") from error

    if opened.is_folder(file):
        with tempfile.TemporaryDirectory(prefix="litehrnet-stage2-") as folder:
            program = opened_from(opened.extract(file, Path(folder)))
    else:
        program = opened_from(opened.read(file))
    info = session_info(opened, runtime=runtime, version=version, artifact=file, threads=threads)
    return Session(info, BorderProgram(program, *specs, border))


def session_info(bundle: Bundle, *, runtime: str, version: str, artifact: str, threads: int) -> SessionInfo:
    """The info of a session on an artifact."""
    return SessionInfo(
        runtime=runtime,
        version=version,
        artifact=artifact,
        sha256=bundle.sha256(artifact),
        threads=threads,
        inputs=bundle.manifest.inputs,
        outputs=bundle.manifest.outputs,
    )
