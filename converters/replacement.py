"""Puts a finished bundle in its place, whole or not at all; an older one goes only when the new one is there.

The new bundle is made in a scratch beside its place. Where the system can exchange two folders, one step puts it
there; elsewhere the older one is moved aside first, and a run that finds it aside brings it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from litehrnet_stage2.converters.exchange import NoExchangeError, exchange
from litehrnet_stage2.reference.contract.manifest import BundleError, holds_bundle
from litehrnet_stage2.reference.scratch import dead_scratches, remove, scratch

_ASIDE = "aside"  # in a scratch: the older bundle while it has no place
_GONE = "gone"  # the same when it has been replaced
_MOUNTS = Path("/proc/self/mountinfo")


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A fresh folder to fill; at the end of the `with` statement it takes the place of `out`, if there was no error.

    Raises:
        BundleError: at `out` is something that must not, or cannot, be replaced.
        OSError: the folder of `out` cannot be written to.
    """
    place = check_replaceable(out)
    place.parent.mkdir(parents=True, exist_ok=True)
    recover(place)
    try:
        with scratch(place, Path.mkdir) as folder:
            yield folder
            _replace(folder, place)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EBUSY):
            raise BundleError(f"{out} cannot be moved from its place: remove it, or give another --out") from error
        if error.filename is not None and Path(os.fsdecode(error.filename)).parent == place.parent:
            raise OSError(error.errno, error.strerror, str(out)) from error  # not the scratch's name
        raise


def check_replaceable(out: Path) -> Path:
    """Check that a bundle can be put at `out` and destroys nothing else; returns the path with links followed.

    Raises:
        BundleError: something is there that is neither a bundle nor an empty folder, or it cannot be replaced as a
            whole, or nothing can be written beside it.
    """
    try:
        place = out.resolve()
    except (OSError, RuntimeError) as error:  # links that go round
        raise BundleError(f"--out {out} cannot be followed ({error}): give another folder") from error
    instead = "give --out a new folder, or one that holds a bundle"
    try:
        if _holds_other(place):
            raise BundleError(f"{out} exists and is no bundle: {instead}")
    except OSError as error:
        raise BundleError(f"{out} cannot be looked at ({error.strerror}): {instead}") from error
    if place.is_dir() and place == Path.cwd():
        raise BundleError(f"{out} is the current folder, which is not replaced: call this from the folder above")
    if place.is_dir() and _is_mount(place):
        raise BundleError(f"{out} is a mount point, which cannot be replaced as a whole: give a folder inside of it")
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        what = "is read-only" if parent.is_dir() else "is no folder"
        raise BundleError(f"{out} cannot be made: {parent} {what}, and a bundle is made beside its place")
    return place


def recover(place: Path) -> None:
    """Bring back a bundle that a run which died had moved aside, and remove what else such runs left."""
    for dead in dead_scratches(place):
        _settle(dead, place)


def _holds_other(place: Path) -> bool:
    """Whether something is there that is neither a bundle nor an empty folder, another run replacing it or not."""
    while (there := _identity(place)) is not None:
        with contextlib.suppress(FileNotFoundError):
            if holds_bundle(place) or (place.is_dir() and not any(place.iterdir())):
                return False
        if _identity(place) == there:
            return True
    return False


def _identity(place: Path) -> tuple[int, int] | None:
    try:
        found = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _is_mount(folder: Path) -> bool:
    mounts: list[str] = []
    with contextlib.suppress(OSError):  # of one file system within itself, as containers have, only Linux knows
        mounts = [line.split()[4] for line in _MOUNTS.read_text(encoding="utf-8").splitlines()]
    escaped = str(folder).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return escaped in mounts or os.path.ismount(folder)


def _replace(folder: Path, place: Path) -> None:
    """Put `folder` at `place`; of runs that end at once the last one stays."""
    while True:
        check_replaceable(place)  # once more: minutes have passed
        try:
            if not os.path.lexists(place):
                folder.rename(place)
                return
            exchange(folder, place)
        except NoExchangeError:
            return _move_aside(folder, place)
        except OSError as error:
            # Another run put its bundle there, or moved it away, a hair before.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or not folder.is_dir():
                raise
            continue
        if not _holds_other(folder):
            return  # there lies the older bundle now
        exchange(folder, place)  # somebody put another thing there a hair before: back with it


def _move_aside(folder: Path, place: Path) -> None:
    """Replace in two steps: what was there comes back if the second fails, and goes only when its place is taken."""
    with scratch(place, Path.mkdir, discard=lambda kept: _settle(kept, place)) as kept:
        while True:
            with contextlib.suppress(FileNotFoundError):
                place.rename(kept / _ASIDE)
            try:
                folder.rename(place)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                remove(kept / _ASIDE)  # another run was faster by a hair; its bundle is the older one now


def _settle(kept: Path, place: Path) -> None:
    """End a scratch: what is aside goes back if its place is free, and is removed if that is taken; never both."""
    with contextlib.suppress(FileNotFoundError):
        if not os.path.lexists(place):
            (kept / _ASIDE).rename(place)
        else:
            (kept / _ASIDE).rename(kept / _GONE)  # what is half removed is never brought back
    remove(kept)
