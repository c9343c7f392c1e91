"""Swaps two folders in one step, where the system can do that, so that one of them is always in place."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100 if sys.platform == "linux" else -2
_SWAP = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_CALLS = {"linux": "renameat2", "darwin": "renameatx_np"}
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class NoExchangeError(Exception):
    """This system, or this file system, cannot exchange two paths."""


def exchange(one: Path, other: Path) -> None:
    """Exchange two paths that exist, on one file system.

    Raises:
        NoExchangeError: it cannot be done here.
        OSError: as from a rename.
    """
    name = _CALLS.get(sys.platform)
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    if call is None:
        raise NoExchangeError(f"{sys.platform} has no exchange of paths")
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _SWAP) == 0:
        return
    error = ctypes.get_errno()
    if error in _CANNOT:
        raise NoExchangeError(f"the file system of {one} has no exchange of paths")
    raise OSError(error, os.strerror(error), str(one), None, str(other))
