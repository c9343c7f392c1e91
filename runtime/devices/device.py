"""A device: runs artifacts where it is, and says what it is, whatever way it is reached."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

import numpy as np

from litehrnet_stage2.reference.array_files import read_npy
from litehrnet_stage2.reference.cache_folder import cache_root
from litehrnet_stage2.reference.errors import InputError, printable
from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.reference.upstream import litert_2
from litehrnet_stage2.runtime.child import PYTHON
from litehrnet_stage2.runtime.devices.device_errors import DeviceError, RunnerError
from litehrnet_stage2.runtime.devices.emulation import (
    LIBRARY_WHEELS,
    CpuModel,
    emulator,
    prepare_emulation,
    qemu_program,
)
from litehrnet_stage2.runtime.devices.facts import (
    FACTS_SCRIPT,
    CoreKind,
    DeviceFacts,
    known_features,
    parse_facts,
)
from litehrnet_stage2.runtime.devices.processors import core_name
from litehrnet_stage2.runtime.devices.reply import Output, Reply, read_reply
from litehrnet_stage2.runtime.devices.toolchain import (
    EXECUTORCH_VERSION,
    build_instruction_counter,
    build_runner,
    canonical_arch,
)
from litehrnet_stage2.runtime.devices.transport import (
    MOST_FETCHED_BYTES,
    LocalTransport,
    Transport,
    run_local,
)
from litehrnet_stage2.runtime.memory_limit import LIMITED, LIMITED_ADDRESSES
from litehrnet_stage2.runtime.onnx_file import OnnxFileError, check_self_contained
from litehrnet_stage2.runtime.program import Array, Arrays

PYTHON_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
"""The libraries that a device's Python runs, and the package that brings each."""

FACTS_TIMEOUT_S = 20.0
"""For a device to say what it is."""

_HERE = Path(__file__).parent


class RunOptions(TypedDict, total=False):
    """How to run a model; each may be left out.

    `threads` (1) of the runtime; `warmup` (0) and `iterations` (0) queries to time; `affinity` (none, but
    a phone's big cores), the cores to be bound to; `timeout_s` (600) after which the run is given up.
    """

    threads: int
    warmup: int
    iterations: int
    affinity: Sequence[int] | None
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class NativeRun:
    """What one run on a device gave.

    Attributes:
        outputs: one array per output of the model, samples along the first dimension.
        load_ms: time to load the model; `None` on an emulated device, whose time means nothing.
        first_ms: time of the first inference, likewise.
        warmup_ns: monotonic time of each warm-up query, likewise empty.
        query_ns: monotonic time of each query after them, likewise empty.
        outputs_repeat: the outputs after the timed queries were the same bytes as before.
        rss_peak_mib: highest resident memory of the process that ran the model, likewise.
        threads: of the runtime.
        cpu_features: that the native runner saw; empty for files that Python runs.
        affinity: cores the process was bound to; empty where it was not.
        runtime: the library that ran the model, and its version.
        facts: of the device.
    """

    outputs: tuple[Array, ...]
    load_ms: float | None
    first_ms: float | None
    warmup_ns: tuple[int, ...]
    query_ns: tuple[int, ...]
    outputs_repeat: bool
    rss_peak_mib: float | None
    threads: int
    cpu_features: tuple[str, ...]
    affinity: tuple[int, ...]
    runtime: str
    facts: DeviceFacts


@dataclass(frozen=True, kw_only=True)
class InstructionCount:
    """Instructions of one inference on an emulated CPU, the median of `queries`."""

    per_inference: float
    queries: int
    cpu: str
    runtime: str


class Device:
    """A place where models run. Use it in a `with` statement: its work folder is removed at the end.

    Args:
        name: as the user gave it, e.g. `ssh:pi@board`.
        transport: how it is reached.
        python: the words that start a Python for files other than `.pte`; empty where there is none.
        default_to_big_cores: bind runs to the cores with the highest frequency unless told otherwise, as on
            phones, where a run that lands on a small core takes several times as long.
        cache_dir: where runners are built; the user's cache by default.
        progress: told what takes long.
    """

    emulated = False
    _limited: Sequence[str] = LIMITED

    def __init__(
        self,
        name: str,
        transport: Transport,
        *,
        python: Sequence[str] = (),
        default_to_big_cores: bool = False,
        cache_dir: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self.name = name
        self.transport = transport
        self.python = list(python)
        self._default_to_big_cores = default_to_big_cores
        self._cache_dir = cache_dir or cache_root()
        self._progress = progress
        self._there: set[str] = set()
        self._commands: dict[str, list[str]] = {}  # by library: what they need is verified once
        self._arch: str | None = None  # known once the device was asked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything from the device."""
        self._there.clear()
        self._commands.clear()
        self.transport.remove()

    def facts(self) -> DeviceFacts:
        """What the device is and how it is now: ask before and after a timing run.

        Raises:
            DeviceError: it cannot be reached, or its processor is not supported.
        """
        done = self.transport.run(["sh", "-c", FACTS_SCRIPT], timeout_s=FACTS_TIMEOUT_S)
        machine = next((line[9:] for line in done.stdout.splitlines() if line.startswith("@machine\t")), "")
        if done.status or not machine:
            raise DeviceError(f"{self.name} does not say what it is: {done.stderr.strip()[-1000:] or 'no uname'}")
        return parse_facts(done.stdout, device=self.name, arch=canonical_arch(machine))

    def run(
        self,
        library: str,
        artifact: Path,
        inputs: Array | Arrays,
        *,
        settings: Mapping[str, str] | None = None,
        **options: Unpack[RunOptions],
    ) -> NativeRun:
        """Run an artifact: with the native runner (`executorch`), or with the device's Python (`PYTHON_PACKAGES`).

        Every sample of `inputs` (each `[N, ...]`, the dtype of that input of the artifact) is run once for the
        outputs; then `warmup` and `iterations` queries are timed; then the outputs are checked again.

        Args:
            library: that runs it.
            artifact: the file.
            inputs: the samples of each input, or of the one.
            settings: of the library's session, e.g. ONNX Runtime's `mlas.disable_kleidiai` "1", with which it
                uses none of its SME kernels.
            options: see `RunOptions`.

        Raises:
            RunnerError: the artifact or the inputs are not what they should be, or the run failed.
            DeviceError: the device or a tool of this machine is missing or lost.
        """
        _check_artifact(library, artifact)
        words = [word for key, value in (settings or {}).items() for word in ("--setting", f"{key}={value}")]
        return self._run([*self._command(library), *words], artifact, _each(inputs), **options)

    def library_version(self, library: str) -> str:
        """The version of a library on the device: of `executorch`, that of the native runner.

        Raises:
            DeviceError: the device has no such library.
        """
        if library == "executorch":
            return EXECUTORCH_VERSION
        package = PYTHON_PACKAGES[library]
        program = (
            f"import {package.replace('-', '_')}; from importlib.metadata import version; print(version({package!r}))"
        )
        done = self.transport.run([*self._python_words(library), "-c", program], timeout_s=60)
        if done.status:
            said = done.stderr.strip().rpartition("\n")[2][-1000:]
            raise DeviceError(f"{self.name} cannot run {library} ({said}): install {package} there")
        return done.stdout.strip()[:100]

    def _command(self, library: str) -> list[str]:
        """The words that start the runner for a library, which is on the device then."""
        if library not in self._commands:
            self._commands[library] = self._prepared(library)
        return self._commands[library]

    def _prepared(self, library: str) -> list[str]:
        if library == "executorch":
            return self._pte_command()
        python = self._python_words(library)
        for file in (_HERE / "python_runner.py", Path(litert_2.__file__)):
            self._put_once(file, file.name)
        return [*python, "./python_runner.py", "--library", library]

    def _python_words(self, library: str) -> list[str]:
        if not self.python:
            raise DeviceError(f"{self.name} has no Python, which {library} needs: run the .pte there")
        return self.python

    def _pte_command(self) -> list[str]:
        if self._arch is None:
            facts = self.facts()
            if not facts.kernel.startswith("Linux"):
                raise DeviceError(f"the native runner is for Linux, and {self.name} says it is {facts.kernel}")
            self._arch = facts.arch
        build = build_runner(self._arch, self._cache_dir, progress=self._progress)
        self._put_once(build.folder, "runtime")
        return build.command("./runtime")

    def _put_once(self, local: Path, name: str) -> None:
        if name not in self._there:
            self._progress(f"copying {name} to {self.name}")
            self.transport.put(local, name)
            self._there.add(name)

    def _run(
        self,
        command: list[str],
        model: Path,
        inputs: Arrays,
        *,
        threads: int = 1,
        warmup: int = 0,
        iterations: int = 0,
        affinity: Sequence[int] | None = None,
        timeout_s: float = 600,
    ) -> NativeRun:
        facts = self.facts()
        if affinity is None:
            affinity = facts.big_cores if self._default_to_big_cores else ()
        flags = ["--threads", str(threads), "--warmup", str(warmup), "--iterations", str(iterations)]
        flags += ["--affinity", ",".join(map(str, affinity))] if affinity else []
        with tempfile.TemporaryDirectory() as temporary:
            self.transport.put(model, "model")
            files = ["--model", "./model", *self._put_inputs(inputs, Path(temporary)), "--output", "./output"]
            reply = self._reply([*command, *files, *flags], timeout_s)
            images = len(inputs[0])
            if (len(reply.warmup_ns), len(reply.query_ns)) != (warmup, iterations):
                raise DeviceError(
                    f"the runner on {self.name} timed {len(reply.warmup_ns)} and {len(reply.query_ns)} queries, "
                    f"where {warmup} and {iterations} were asked for"
                )
            if (size := images * sum(output.size_bytes for output in reply.outputs)) > MOST_FETCHED_BYTES:
                raise DeviceError(
                    f"{self.name} has {size:,} bytes of outputs, and at most {MOST_FETCHED_BYTES:,} are fetched"
                )
            outputs = tuple(self._fetch(i, output, images, Path(temporary)) for i, output in enumerate(reply.outputs))
        timed = not self.emulated
        return NativeRun(
            outputs=outputs,
            load_ms=reply.load_ms if timed else None,
            first_ms=reply.first_ms if timed else None,
            warmup_ns=reply.warmup_ns if timed else (),
            query_ns=reply.query_ns if timed else (),
            outputs_repeat=reply.outputs_repeat,
            rss_peak_mib=reply.rss_peak_mib if timed else None,
            threads=reply.threads,
            cpu_features=tuple(printable(feature) for feature in reply.cpu_features),
            affinity=tuple(affinity),
            runtime=printable(reply.runtime),
            facts=facts,
        )

    def _put_inputs(self, inputs: Arrays, folder: Path) -> list[str]:
        """The flags that name the files of the inputs, which are on the device then."""
        names = [f"input.{i}.npy" for i in range(len(inputs))]
        for name, x in zip(names, inputs, strict=True):
            np.save(folder / name, np.ascontiguousarray(x))
            self.transport.put(folder / name, name)
        return [word for name in names for word in ("--input", f"./{name}")]

    def _fetch(self, index: int, one: Output, samples: int, folder: Path) -> Array:
        """An output's file, compared with what the reply said of it."""
        name = f"output.{index}.npy"
        self.transport.get(name, folder / name)
        try:
            found = read_npy(folder / name)
        except InputError as error:
            raise DeviceError(f"{self.name} sent an output that cannot be read: {error}") from error
        due = (samples * one.shape[0], *one.shape[1:])
        if found.dtype != one.dtype or found.shape != due:
            raise DeviceError(f"{self.name} sent {found.dtype} {list(found.shape)}, and said {one.dtype} {list(due)}")
        return found

    def _reply(self, argv: list[str], timeout_s: float) -> Reply:
        return read_reply(self.transport.run([*self._limited, *argv], timeout_s=timeout_s), self.name)


def _check_artifact(library: str, artifact: Path) -> None:
    """Check what can be checked before a file travels."""
    if not artifact.is_file():
        raise DeviceError(f"there is no model file {artifact}")
    if library == "onnxruntime":
        try:
            check_self_contained(artifact.read_bytes())
        except OnnxFileError as error:
            raise RunnerError("model", f"{artifact} is not put on a device: {error}") from error


class EmulatedDevice(Device):
    """An Arm CPU under the emulator, on this machine. Adds instruction counts, gives no times."""

    emulated = True
    _limited = LIMITED_ADDRESSES

    def __init__(self, cpu: CpuModel, *, cache_dir: Path | None = None, progress: Progress = silent) -> None:
        super().__init__(f"emulated:{cpu.name}", LocalTransport(), cache_dir=cache_dir, progress=progress)
        self.cpu = cpu
        self._arch = "aarch64"

    def facts(self) -> DeviceFacts:
        """What is emulated, and by what."""
        version = run_local([qemu_program(), "--version"], timeout_s=30).stdout.partition("\n")[0]
        core = CoreKind(name=core_name(self.cpu.midr), part=f"0x{self.cpu.midr:08x}", cores=(0,))
        return DeviceFacts(
            device=self.name,
            emulated=True,
            arch="aarch64",
            cores=(core,),
            features=known_features(("asimd", *self.cpu.features)),
            kernel=version,
        )

    def count_instructions(
        self, library: str, artifact: Path, inputs: Array | Arrays, *, queries: int = 4, timeout_s: float = 600
    ) -> InstructionCount:
        """Count the instructions of one inference of an artifact in a library, one thread, on the first image.

        The runners mark where an inference starts and ends, so that nothing else is counted, and the first, which
        sets up, is left out. A cost that repeats, good to notice a regression with; not a latency.

        Raises:
            RunnerError: the model or the input is refused.
            DeviceError: a tool is missing; `queries` runs did not end in time.
        """
        _check_artifact(library, artifact)
        argv = self._command(library)
        self._put_once(build_instruction_counter(self._cache_dir), "libinstructions.so")
        argv = [argv[0], "-plugin", "./libinstructions.so,out=./instructions.txt", *argv[1:]]
        self.transport.put(artifact, "model")
        with tempfile.TemporaryDirectory() as temporary:
            counted = Path(temporary, "instructions.txt")
            files = ["--model", "./model", *self._put_inputs(tuple(x[:1] for x in _each(inputs)), Path(temporary))]
            reply = self._reply([*argv, *files, "--iterations", str(queries)], timeout_s)
            self.transport.get("instructions.txt", counted)
            try:
                marks = np.loadtxt(counted, np.int64, ndmin=1)
            except ValueError as error:
                raise DeviceError(f"the emulator of {self.name} wrote no counts of instructions ({error})") from error
        if len(marks) != (due := 2 * (1 + queries + 1)):  # the first, those asked for, and the check that they repeat
            raise DeviceError(
                f"the runner on {self.name} marked {len(marks)} edges of inferences, where {due} were due"
            )
        starts, ends = marks[2:-2].reshape(-1, 2).T
        return InstructionCount(
            per_inference=float(np.median(ends - starts)),
            queries=queries,
            cpu=self.cpu.name,
            runtime=reply.runtime,
        )

    def library_version(self, library: str) -> str:
        """The version that the emulated Python or the native runner has."""
        return EXECUTORCH_VERSION if library == "executorch" else LIBRARY_WHEELS[library].version

    def _pte_command(self) -> list[str]:
        return [*emulator(self.cpu, self._cache_dir), *super()._pte_command()]

    def _python_words(self, library: str) -> list[str]:
        python = prepare_emulation(self._cache_dir, progress=self._progress)
        guest = [word for key, value in python.env().items() for word in ("-E", f"{key}={value}")]
        return [*emulator(self.cpu, self._cache_dir), *guest, *python.command()]


def local_device(*, cache_dir: Path | None = None, progress: Progress = silent) -> Device:
    """This machine, with the interpreter that runs this for files other than `.pte`."""
    return Device("local", LocalTransport(), python=PYTHON, cache_dir=cache_dir, progress=progress)


def _each(inputs: Array | Arrays) -> Arrays:
    return inputs if isinstance(inputs, tuple) else (inputs,)
