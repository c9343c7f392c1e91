"""A work folder on another machine that lives exactly as long as one shell session to it.

A small script makes the folder and then waits on its standard input. Whatever ends the session - `remove`,
Ctrl-C, this process killed, the connection dropped - ends that input, and the script stops what still runs
in the folder and removes it. Nothing on this side has to survive for the other side to be clean.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from litehrnet_stage2.runtime.child import as_text, end_with_children
from litehrnet_stage2.runtime.devices.device_errors import DeviceError
from litehrnet_stage2.runtime.devices.transport import Completed, checked_name, run_local

_HOLD = """
umask 077
d=$(mktemp -d "{parent}/litehrnet-stage2.XXXXXX") || exit 1
exec 3<&0
cat <&3 >/dev/null &
input=$!
clean() {{ kill $input $(cat "$d/.pid" 2>/dev/null) 2>/dev/null; rm -rf "$d"; }}
trap clean EXIT
trap 'exit 1' HUP INT TERM
echo "$d"
wait $input
"""
_FOLDER = re.compile(rb"(/[\x20-\x7e]{1,1000})\r?\n")
_LONGEST_ANSWER, _LONGEST_SAYING = 2**14, 2**10
_RUN = "cd {folder} || exit 125\n{command} & echo $! >.pid\nwait $!\nstatus=$?\nrm -f .pid\nexit $status\n"


class ShellTransport(ABC):
    """What ssh and adb share: the held folder, and commands quoted for the shell of the other side."""

    connect_timeout_s = 20.0

    def __init__(self, label: str) -> None:
        self.label = label
        self.holder: subprocess.Popen[bytes] | None = None
        self._folder = ""

    @abstractmethod
    def _argv(self, script: str) -> list[str]:
        """The local command that runs `script` in a POSIX shell on the device."""

    @abstractmethod
    def _parent(self) -> str:
        """Where the work folder is made; the device's shell expands it."""

    @abstractmethod
    def _transfer(self, local: Path, remote: str) -> Completed:
        """Copy a local file or folder to the path `remote`."""

    @abstractmethod
    def _fetch(self, remote: str, local: Path) -> Completed:
        """Copy the file at the path `remote` to `local`."""

    def _holder_argv(self, script: str) -> list[str]:
        return self._argv(script)

    @property
    def folder(self) -> str:
        """The absolute path of the work folder on the device, made when first asked for."""
        if self.holder is None:
            self._connect()
        elif self.holder.poll() is not None:
            raise DeviceError(
                f"the connection to {self.label} was lost; the other side removes its work folder. Run again"
            )
        return self._folder

    def _connect(self) -> None:
        # A session of its own, so that Ctrl-C reaches this process first and it can leave in order.
        argv = self._holder_argv(_HOLD.format(parent=self._parent()))
        try:
            holder = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise DeviceError(f"`{argv[0]}` is not installed on this machine") from error
        assert holder.stdout is not None
        assert holder.stderr is not None
        self.holder = holder
        line = _line(holder.stdout, seconds=self.connect_timeout_s)
        folder = _FOLDER.fullmatch(line)
        if folder is None:
            # What it has to say of a failure it has said by now; a session that lives on says nothing.
            holder.kill()
            said = as_text(_line(holder.stderr, seconds=1, end=b"")).strip() or as_text(line).strip()
            self.remove()
            advice = self._advice(said)
            raise DeviceError(f"cannot work on {self.label}: {said[-_LONGEST_SAYING:] or 'it did not answer'}{advice}")
        self._folder = folder[1].decode()

    def _advice(self, said: str) -> str:
        del said
        return ""

    def put(self, local: Path, name: str) -> None:
        """Copy a local file or folder into the work folder."""
        if not local.exists():
            raise DeviceError(f"{local} does not exist, so it cannot be put on {self.label}")
        done = self._transfer(local, f"{self.folder}/{checked_name(name)}")
        if done.status:
            self._check_connection()
            # tar and adb do not always say that it is for want of space.
            free = run_local(self._argv(f"df -kP {shlex.quote(self.folder)}"), timeout_s=60).stdout.split()
            raise DeviceError(
                f"{local.name!r} cannot be put on {self.label}: {_said(done)}\n"
                f"{self.folder} has {free[-3] if len(free) > 5 else 'an unknown number of'} KiB free"
            )

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a command in the work folder."""
        script = _RUN.format(folder=shlex.quote(self.folder), command=shlex.join(argv))
        done = run_local(self._argv(script), timeout_s=timeout_s)
        if done.status and not done.stdout:
            self._check_connection()
        return done

    def _check_connection(self) -> None:
        assert self.holder is not None
        # The end of the session may be seen a little later than the command's.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.holder.wait(timeout=1)
        _ = self.folder

    def get(self, name: str, local: Path) -> None:
        """Copy the file `name` to `local`."""
        done = self._fetch(f"{self.folder}/{checked_name(name)}", local)
        if done.status:
            local.unlink(missing_ok=True)
            raise DeviceError(f"{name!r} cannot be fetched from {self.label}: {_said(done)}")

    def remove(self) -> None:
        """End the session; the other side removes the folder."""
        holder, self.holder = self.holder, None
        if holder is None:
            return
        assert holder.stdin is not None
        with contextlib.suppress(OSError):
            holder.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            holder.wait(timeout=10)
        end_with_children(holder)


def _line(stream: IO[bytes], *, seconds: float, end: bytes = b"\n") -> bytes:
    """What a stream gives up to `end`, at most so much and for at most so long."""
    said = bytearray()
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while len(said) < _LONGEST_ANSWER and selector.select(max(0.0, until - time.monotonic())):
            # Byte by byte until the end, behind which is what another reader wants.
            if not (read := os.read(stream.fileno(), 1 if end else _LONGEST_ANSWER)):
                break
            said += read
            if end and read == end:
                break
    return bytes(said)


def _said(done: Completed) -> str:
    return (done.stderr.strip() or done.stdout.strip())[-_LONGEST_SAYING:] or f"status {done.status}"
