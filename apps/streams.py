"""Standard output and error as a command meets them: closed, full, read no further, or of an ASCII terminal."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT = "standard output"


class _Descriptor(io.RawIOBase):
    """A descriptor to write to. That nobody reads on is no error; a `forgiving` one knows no error at all."""

    def __init__(self, descriptor: int | None, *, forgiving: bool) -> None:
        self._descriptor = descriptor
        self._forgiving = forgiving
        self._over = False

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._descriptor is not None and os.isatty(self._descriptor)

    def fileno(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "closed", OUTPUT)
        return self._descriptor

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self._over:
            return size
        try:
            return os.write(self.fileno(), data)
        except OSError as error:
            self._over = True  # said once; what comes after it has nowhere to go
            if self._forgiving or isinstance(error, BrokenPipeError):
                return size
            raise OSError(error.errno, error.strerror, OUTPUT) from error


def prepare() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that end no command the wrong way."""
    sys.stdout = _text(None if 1 in _CLOSED else 1, forgiving=False, like=sys.stdout)
    sys.stderr = _text(2, forgiving=True, like=sys.stderr)


def standard_error() -> TextIO:
    """A stream of its own to where standard error goes now."""
    return _text(os.dup(2), forgiving=True, like=sys.stderr)


def _fill() -> tuple[int, ...]:
    """Open to nowhere, of the first three descriptors, those that are closed; returns which.

    The next file would get their number, and what a library prints would go into it.
    """
    closed = []
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.append(descriptor)
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
    return tuple(closed)


_CLOSED = _fill()  # when this is imported, before anything is opened


def _text(descriptor: int | None, *, forgiving: bool, like: TextIO | None) -> TextIO:
    raw = _Descriptor(descriptor, forgiving=forgiving)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=_encoding(like),
        errors="backslashreplace",  # a path that the terminal cannot show is shown all the same
        line_buffering=raw.isatty(),
    )


def _encoding(like: TextIO | None) -> str:
    """The encoding that Python chose, but ASCII where the user asks for the plain locale, which Python overrules."""
    chosen = any(os.environ.get(name) for name in ("PYTHONIOENCODING", "PYTHONUTF8"))
    if not chosen and os.environ.get("LC_ALL") in ("C", "POSIX"):
        return "ascii"
    return getattr(like, "encoding", None) or "utf-8"
