"""Writes files whole or not at all, and reads none that block or have no end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.scratch import scratch, sweep


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds all of `content`, or what it held before.

    A link is followed and stays. What is no regular file (a device, a FIFO, `/dev/fd/3`) is written to in place.

    Raises:
        OSError: it cannot be written; no partial file is left behind.
    """
    try:
        if written_in_place(path):
            path.write_bytes(content)
        else:
            _replace(path.resolve(), content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def written_in_place(path: Path) -> bool:
    """Whether `path` is there and not a regular file, or names an open descriptor of some process."""
    if path.parent.resolve().parts[:2] in (("/", "dev"), ("/", "proc")):
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def read_regular(path: Path, *, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes`; neither a FIFO nor a huge file is waited for.

    Raises:
        InputError: it is no regular file, or larger.
        OSError: it cannot be read.
    """
    with open_regular(path, most_bytes=most_bytes) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # not `most_bytes`, which would be set aside at once


def open_regular(path: Path, *, most_bytes: int | None) -> BinaryIO:
    """A regular file, opened for reading; as `read_regular`, but of any size where `most_bytes` is None."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with contextlib.ExitStack() as refused:
        refused.callback(os.close, descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no regular file: copy what it stands for into one")
        if most_bytes is not None and found.st_size > most_bytes:
            raise InputError(f"{path} has {found.st_size:,} bytes, and at most {most_bytes:,} are read")
        refused.pop_all()
    return open(descriptor, "rb")  # noqa: PTH123 (opened already, so that a FIFO cannot hold it up)


def _replace(path: Path, content: bytes) -> None:
    sweep(path)
    with scratch(path, _create) as beside:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
        beside.replace(path)


def _create(path: Path) -> None:
    path.touch(exist_ok=False)
