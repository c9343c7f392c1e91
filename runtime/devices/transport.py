"""A transport brings files and commands to a device: one small interface, and this machine as the simplest device."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import open_regular
from litehrnet_stage2.runtime.child import MOST_OUTPUT_BYTES, ChildError, as_text, run_bounded
from litehrnet_stage2.runtime.devices.device_errors import DeviceError

TRANSFER_TIMEOUT_S = 600.0
"""For a file on its way: the runner with its libraries, 30 MB, at half a megabit a second."""

MOST_FETCHED_BYTES = 2**30
"""Of a file that a device has."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a command on the device left: its exit status and what it printed."""

    status: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """A work folder on a device, made at the first use and gone after `remove`.

    Names are relative to the work folder and may hold any character but `/` and NUL; commands run in it.
    """

    def put(self, local: Path, name: str) -> None:
        """Copy a local file or folder to `name`. Raises `DeviceError` where it does not arrive."""

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a command, its words as they are. Raises `DeviceError` where it hangs or the device is lost."""

    def get(self, name: str, local: Path) -> None:
        """Copy the file `name` to `local`. Raises `DeviceError` where it is not there, or too large or late."""

    def remove(self) -> None:
        """Remove the work folder. Safe to call twice, and after the device was lost."""


class LocalTransport:
    """A temporary folder of this machine; what is put there is linked, not copied."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(env) if env is not None else None
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The work folder, made when first asked for."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="litehrnet-stage2-"))
        return self._folder

    def put(self, local: Path, name: str) -> None:
        """Link `name` to the local file or folder."""
        if not local.exists():
            raise DeviceError(f"{local} does not exist, so it cannot be put on the device")
        link = self.folder / checked_name(name)
        link.unlink(missing_ok=True)
        link.symlink_to(local.resolve())

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a command in the work folder."""
        return run_local(argv, timeout_s=timeout_s, cwd=self.folder, env=self._env)

    def get(self, name: str, local: Path) -> None:
        """Copy the file `name` to `local`."""
        source = self.folder / checked_name(name)
        try:
            with open_regular(source, most_bytes=MOST_FETCHED_BYTES) as file, local.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        except (OSError, InputError) as error:
            raise DeviceError(f"the command left no file {name!r} in its work folder ({error})") from error

    def remove(self) -> None:
        """Remove the work folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def checked_name(name: str) -> str:
    """`name`, if it names something directly inside a work folder.

    Raises:
        ValueError: it is empty, `.`, `..`, or holds a slash or NUL.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InputError(f"{name!r} does not name a file in the work folder: no `/`, no NUL, not `.` or `..`")
    return name


def run_local(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: BinaryIO | None = None,
    into: BinaryIO | None = None,
    most_bytes: int = MOST_OUTPUT_BYTES,
    grows: Path | None = None,
) -> Completed:
    """Run a command of this machine to its end, as `run_bounded`.

    Raises:
        DeviceError: the program is not there, did not end within `timeout_s`, or sent more than `most_bytes`.
    """
    try:
        done = run_bounded(
            argv,
            timeout_s=timeout_s,
            cwd=cwd,
            env=env,
            stdin=stdin or b"",
            into=into,
            most_bytes=most_bytes,
            grows=grows,
        )
    except ChildError as error:
        raise DeviceError(str(error)) from error
    return Completed(status=done.status, stdout=as_text(done.stdout), stderr=as_text(done.stderr))
