"""Starts other programs: with no module from the current folder, and with a limit on their time and output.

A bundle comes from elsewhere, and people stand in its folder: `python -m` would search a `numpy.py` there first. What
a device or a library's process sends back is read up to a stated size, for a stated time, and then it is ended.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from litehrnet_stage2.reference.errors import Stage2Error, printable

PYTHON = (sys.executable, "-P")
"""The words that start this interpreter; `-P` leaves the current folder out of the modules' path."""

MOST_OUTPUT_BYTES = 2**24
"""That a program may print on each of its streams: a run of a million timed queries prints ten."""

_CHUNK = 2**16
_LAST_WORDS_S = 1.0  # for what is in the pipes when a program has ended


def keep_children_safe() -> None:
    """Have every Python that is started from here on, by libraries too, leave the current folder out."""
    os.environ["PYTHONSAFEPATH"] = "1"


class ChildError(Stage2Error):
    """A program was not there, or was ended because it took too long or sent too much; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a program left: its exit status, negative for a signal, and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


def run_bounded(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | BinaryIO = b"",
    into: BinaryIO | None = None,
    most_bytes: int = MOST_OUTPUT_BYTES,
    grows: Path | None = None,
) -> Ended:
    """Run a program of this machine to its end.

    Args:
        argv: the program and its words.
        timeout_s: after which it and what it started are ended.
        cwd: where it runs; here by default.
        env: its variables; this process's by default.
        stdin: its input, or a file that holds it.
        into: a file that gets its standard output, which then is empty in the answer.
        most_bytes: that it may print on each stream, and write to `grows`.
        grows: a file that it writes.

    Raises:
        ChildError: it cannot be started, did not end in time, or sent more than `most_bytes`.
    """
    with _started(argv, stdin, cwd=cwd, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        sinks: dict[IO[bytes], _Sink] = {process.stdout: _Sink(into), process.stderr: _Sink()}
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for stream in sinks:
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(0.1):
                    stream = next(stream for stream in sinks if stream is key.fileobj)
                    if not (chunk := os.read(key.fd, _CHUNK)):
                        selector.unregister(stream)
                    sinks[stream].take(chunk)
                sizes = (*(sink.size for sink in sinks.values()), _size(grows))
                if max(sizes) > most_bytes:
                    raise ChildError(f"`{argv[0]}` sent more than {most_bytes:,} bytes and was stopped")
                if process.poll() is not None:  # another process may hold its pipes open
                    end = min(end, time.monotonic() + _LAST_WORDS_S)
                if time.monotonic() > end:
                    break
        status = _status(process, end)
        if status is None:
            raise ChildError(f"`{argv[0]}` did not end within {timeout_s:g} s and was stopped")
        stdout, stderr = (bytes(sink.kept) for sink in sinks.values())
        return Ended(status=status, stdout=stdout, stderr=stderr)


class _Sink:
    """What one stream gave: kept, or written to a file."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file
        self.kept = bytearray()
        self.size = 0

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._file is None:
            self.kept += chunk
        else:
            self._file.write(chunk)


@contextlib.contextmanager
def _started(
    argv: Sequence[str], stdin: bytes | BinaryIO, *, cwd: Path | None, env: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own, so that it can be ended with all that it started, as it is at the end."""
    with contextlib.ExitStack() as stack:
        if isinstance(stdin, bytes):
            given = stack.enter_context(tempfile.TemporaryFile())
            given.write(stdin)
            given.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env=env,
                stdin=given if isinstance(stdin, bytes) else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildError(f"`{argv[0]}` cannot be started: {error.strerror}: {error.filename}") from error
        try:
            yield process
        finally:
            end_with_children(process)


def end_with_children(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session, and what it started, if it still runs; close its pipes."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # what the other end did not take
                stream.close()


def _status(process: subprocess.Popen[bytes], end: float) -> int | None:
    """Its status; None where it does not end by `end`."""
    try:
        return process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _size(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_size
    except OSError:
        return 0


def as_text(said: bytes) -> str:
    """What it sent, as `printable` text."""
    return printable(said.decode(errors="replace").replace("\r\n", "\n"))
