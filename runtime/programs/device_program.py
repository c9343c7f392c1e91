"""Artifacts that run on a device, whatever way it is reached: programs and sessions as any other."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Unpack

from litehrnet_stage2.reference.contract.artifacts import DEVICE_RUNTIMES
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices.device import Device, EmulatedDevice, InstructionCount, NativeRun, RunOptions
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.program import Arrays, Program
from litehrnet_stage2.runtime.session import Session, check_threads, session_info


class DeviceProgram(Program):
    """An artifact on a device. Each call starts a process there; the device stays open: who opened it closes it.

    Args:
        device: where it runs.
        library: that runs it.
        artifact: the file, or its content, for which a file is made; `close` removes that.
        threads: of the library.
    """

    takes_batches = True

    def __init__(self, device: Device, library: str, artifact: Path | bytes, *, threads: int) -> None:
        self._device, self._library, self._threads = device, library, threads
        self._folder = None
        if isinstance(artifact, bytes):
            self._folder = tempfile.TemporaryDirectory(prefix="litehrnet-stage2-")
            file = Path(self._folder.name, "artifact")
            file.write_bytes(artifact)
            artifact = file
        self._file = artifact

    def run(self, inputs: Arrays) -> Arrays:
        """Inference of a batch `[N,...]`.

        Raises:
            DeviceError: the device refused, failed or was lost.
        """
        return self.measure(inputs).outputs

    def measure(self, inputs: Arrays, **options: Unpack[RunOptions]) -> NativeRun:
        """One process on the device: every image once, then timed queries, then every image again.

        The outputs are those of the artifact, codes where it gives codes.

        Raises:
            DeviceError: the device refused, failed or was lost.
        """
        settings = exact_settings(self._library, self._device.facts())
        told: RunOptions = {**options, "threads": self._threads}
        return self._device.run(self._library, self._file, inputs, settings=settings, **told)

    def count_instructions(self, inputs: Arrays, *, queries: int = 4) -> InstructionCount:
        """Instructions of one inference on the first image, as `EmulatedDevice.count_instructions`.

        Raises:
            InputError: the device is not an emulated one.
            DeviceError: a tool of this machine is missing.
        """
        if not isinstance(self._device, EmulatedDevice):
            raise InputError(f"instructions are counted on emulated devices alone, and {self._device.name} is real")
        return self._device.count_instructions(self._library, self._file, inputs, queries=queries)

    def close(self) -> None:
        """Remove the file that was made."""
        if self._folder is not None:
            self._folder.cleanup()


def open_device_session(bundle: Bundle | Path, runtime: str, device: Device, *, threads: int = 1) -> Session:
    """Open a bundle's artifact on a device, its hash checked before it travels. Use it in a `with` statement.

    Raises:
        InputError: a runtime that devices do not have, or a thread count below 1.
        BundleError: the artifact is missing, or not what the manifest says.
        DeviceError: the device cannot be reached, or lacks the runtime.
    """
    row = DEVICE_RUNTIMES.get(runtime)
    if row is None or row.artifact is None:
        raise InputError(f"devices do not run {runtime!r}: their runtimes are {', '.join(DEVICE_RUNTIMES)}")
    check_threads(threads)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    file = opened.artifact(row.artifact.name)
    content, manifest = opened.read(file), opened.manifest
    version = device.library_version(row.library)
    info = session_info(opened, runtime=runtime, version=version, artifact=file, threads=threads)
    program = DeviceProgram(device, row.library, content, threads=threads)
    border = manifest.artifacts[row.artifact.name].border
    return Session(info, BorderProgram(program, manifest.inputs, manifest.outputs, border))


def device_program(session: Session) -> DeviceProgram:
    """What runs in a session on a device, to be measured there on `session.program.prepare(...)`.

    Raises:
        TypeError: the session is not on a device.
    """
    program = session.program.inner
    if not isinstance(program, DeviceProgram):
        raise TypeError(f"{session.info.runtime} does not run on a device")
    return program


def exact_settings(library: str, facts: DeviceFacts) -> dict[str, str]:
    """What makes a library compute the function on that processor.

    On x86 without VNNI, ONNX Runtime would multiply uint8 by int8 in instructions that saturate at 16 bits, which is
    another function.
    """
    saturates = facts.arch == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(facts.features)
    return {"session.x64quantprecision": "1"} if library == "onnxruntime" and saturates else {}
