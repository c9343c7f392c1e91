"""How files and commands reach a device: one small interface, and this machine as the simplest device."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.devices.errors import DeviceError


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
        """Copy the file `name` to `local`. Raises `DeviceError` where it is not there."""

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
        if not source.is_file():
            raise DeviceError(f"the command left no file {name!r} in its work folder")
        shutil.copyfile(source, local)

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
    stdin: bytes = b"",
) -> Completed:
    """Run a command of this machine to its end.

    Raises:
        DeviceError: the program is not there, or did not end within `timeout_s`.
    """
    try:
        done = subprocess.run(
            list(argv), cwd=cwd, env=env, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise DeviceError(f"`{argv[0]}` cannot be started: {error.strerror}: {error.filename}") from error
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"`{argv[0]}` did not end within {timeout_s:g} s and was stopped") from error
    return Completed(
        status=done.returncode,
        stdout=done.stdout.decode(errors="replace"),
        stderr=done.stderr.decode(errors="replace"),
    )
