"""Makes things beside their target, before they take its place: locked while the maker lives, swept up later.

A scratch lies in the folder of its target and is called `.NAME.stage2-` and 16 random hexadecimal digits, so that
nobody can plant a link there. Its maker holds a lock on it; one that nobody locks was left by a run that died.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, so nothing is swept either
    fcntl = None  # type: ignore[assignment]

_SUFFIX = re.compile(r"stage2-[0-9a-f]{16}")
_LONGEST = 200  # bytes of the target's name that a scratch's name can hold; a longer one is hashed


def remove(path: Path) -> None:
    """Remove a scratch, a file or a folder with what is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


@contextlib.contextmanager
def scratch(
    target: Path, create: Callable[[Path], None], *, discard: Callable[[Path], None] = remove
) -> Iterator[Path]:
    """A new path beside `target`, made by `create` (which must fail if it exists) and given to `discard` at the end.

    Raises:
        OSError: nothing can be made in that folder.
    """
    while True:
        path = target.with_name(f"{_prefix(target)}stage2-{secrets.token_hex(8)}")
        create(path)
        with contextlib.ExitStack() as held:
            held.callback(discard, path)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # a run that was sweeping took it for a dead one's, before it was locked
            held.callback(os.close, descriptor)
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there either
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _same(path, descriptor):  # or it was taken while this waited for the lock
                yield path
                return


def dead_scratches(target: Path) -> Iterator[Path]:
    """What runs that died left beside `target`, each locked while the caller looks at it."""
    if fcntl is None or not target.parent.is_dir():
        return
    prefix = _prefix(target)
    for path in sorted(target.parent.iterdir()):
        named = path.name.startswith(prefix) and _SUFFIX.fullmatch(path.name.removeprefix(prefix))
        if not named or path.is_symlink() or not (path.is_dir() or path.is_file()):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:  # its maker lives, or another run sweeps
            descriptor = os.open(path, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same(path, descriptor):
                yield path


def sweep(target: Path) -> None:
    """Remove what runs that died left beside `target`."""
    for path in dead_scratches(target):
        remove(path)


def _prefix(target: Path) -> str:
    name = os.fsencode(target.name)
    return f".{target.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()[:32]}."


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False
