"""A session whose inference happens on a device: the same checks and codes as any other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices.device import Device, EmulatedDevice, InstructionCount, NativeRun, RunOptions
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.program import Array, CodesProgram, Float, Outputs, Program
from litehrnet_stage2.runtime.session import OutputError, Session, SessionInfo, check_threads, session_info


class DeviceProgram(Program):
    """An artifact that runs on a device. Unlike others it takes a whole batch: each call starts a process there."""

    def __init__(self, device: Device, library: str, file: Path, *, threads: int) -> None:
        self._device = device
        self._library = library
        self.file = file
        self._threads = threads

    def run(self, x: Array) -> Outputs:
        """Inference of a batch `[N,...]`."""
        y1, y2 = self.measure(x, {}).outputs
        return y1, y2

    def measure(self, x: Array, options: RunOptions) -> NativeRun:
        """The same, with all that the device reports.

        Raises:
            OutputError: the artifact does not have two outputs.
        """
        told: RunOptions = {**options, "threads": self._threads}
        settings = exact_settings(self._library, self._device.facts())
        result = self._device.run(self._library, self.file, x, settings=settings, **told)
        if len(result.outputs) != 2:
            raise OutputError(f"{self.file.name} returned {len(result.outputs)} outputs, not y1 and y2")
        return result


class DeviceSession(Session):
    """Runs a bundle's artifact on a device, all images in one go. Use it in a `with` statement.

    The device stays open: whoever opened it closes it.
    """

    def __init__(self, info: SessionInfo, device: Device, content: bytes) -> None:
        super().__init__(info)
        self.device = device
        runtime = DEVICE_RUNTIMES[info.runtime]
        self._folder = tempfile.TemporaryDirectory(prefix="litehrnet-stage2-")
        file = Path(self._folder.name, Path(info.artifact).name)
        file.write_bytes(content)
        self._inner = DeviceProgram(device, runtime.library, file, threads=info.threads)
        self._program: Program = self._inner
        if runtime.artifact is not None and runtime.artifact.border.codes:
            self._program = CodesProgram(self._inner, info.input, info.outputs, runtime.artifact.border)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def run(self, features: Float, *, out: tuple[Float, Float] | None = None) -> tuple[Float, Float]:
        """Features float32 `[N, in_channels, H, W]` -> `Y1`, `Y2`, as `Session.run`.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
            DeviceError: the device refused, failed or was lost.
        """
        self.check(features)
        y1, y2 = self._outputs(len(features), np.float32, out)
        with self._lock:
            found = self._infer(features)
        for i, (a, b) in enumerate(zip(*found, strict=True)):
            self._store((a[None], b[None]), (y1, y2), i)
        return y1, y2

    def measure(self, features: Float, **options: Unpack[RunOptions]) -> NativeRun:
        """One process on the device: every image once, then timed queries, then every image again.

        The outputs are those of the artifact, codes where it gives codes.

        Raises:
            ValueError: a wrong shape, dtype, or a value that is not finite.
            DeviceError: the device refused, failed or was lost.
        """
        self.check(features)
        with self._lock:
            return self._inner.measure(self._program.prepare(features), options)

    def count_instructions(self, features: Float, *, queries: int = 4) -> InstructionCount:
        """Instructions of one inference on the first image, as `EmulatedDevice.count_instructions`.

        Raises:
            ValueError: the device is not an emulated one, or the features are wrong.
            DeviceError: a tool of this machine is missing.
        """
        self.check(features)
        if not isinstance(self.device, EmulatedDevice):
            raise InputError(f"instructions are counted on emulated devices alone, and {self.device.name} is real")
        with self._lock:
            return self.device.count_instructions(
                DEVICE_RUNTIMES[self.info.runtime].library,
                self._inner.file,
                self._program.prepare(features[:1]),
                queries=queries,
            )

    def _infer(self, image: Float) -> tuple[Float, Float]:
        return self._program.finish(self._program.run(self._program.prepare(image)))


def open_device_session(bundle: Bundle | Path, runtime: str, device: Device, *, threads: int = 1) -> DeviceSession:
    """Open a bundle's artifact on a device, its hash checked before it travels.

    Raises:
        ValueError: a runtime that devices do not have, or a thread count below 1.
        BundleError: the artifact is missing, or not what the manifest says.
        DeviceError: the device cannot be reached, or lacks the runtime.
    """
    if runtime not in DEVICE_RUNTIMES:
        raise InputError(f"devices do not run {runtime!r}: their runtimes are {', '.join(DEVICE_RUNTIMES)}")
    check_threads(threads)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    entry = DEVICE_RUNTIMES[runtime]
    artifact = opened.artifact(entry.artifact.name if entry.artifact else "")
    content = opened.read(artifact)
    version = device.library_version(entry.library)
    info = session_info(opened, runtime=runtime, version=version, artifact=artifact, threads=threads)
    return DeviceSession(info, device, content)


def exact_settings(library: str, facts: DeviceFacts) -> dict[str, str]:
    """What makes a library compute the function on that processor.

    On x86 without VNNI, ONNX Runtime would multiply uint8 by int8 in instructions that saturate at 16 bits, which is
    another function.
    """
    saturates = facts.arch == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(facts.features)
    return {"session.x64quantprecision": "1"} if library == "onnxruntime" and saturates else {}
