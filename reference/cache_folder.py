"""The folder where this package keeps what it made or fetched once, which is one user's alone."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from litehrnet_stage2.reference.errors import Stage2Error


class CacheError(Stage2Error):
    """What lies in the cache cannot be relied on; the message says which folder to delete, or what to set."""


def cache_root() -> Path:
    """`$LITEHRNET_STAGE2_CACHE`, else `litehrnet-stage2` in `$XDG_CACHE_HOME`, else in `~/.cache`.

    Raises:
        CacheError: this user has no home folder.
    """
    own = os.environ.get("LITEHRNET_STAGE2_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own or f"{base}/litehrnet-stage2").expanduser().absolute()
    except RuntimeError as error:
        raise CacheError(
            "this user has no home folder: name a folder for the cache in LITEHRNET_STAGE2_CACHE"
        ) from error


def private_folder(folder: Path) -> Path:
    """Have a folder, made if it is missing, that nobody but this user can enter.

    Raises:
        CacheError: it belongs to somebody else, or others may have written to it.
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    user = os.geteuid() if hasattr(os, "geteuid") else found.st_uid
    if found.st_uid != user:
        raise CacheError(
            f"{folder} belongs to another user (number {found.st_uid}), who could plant programs there: name a folder "
            "of your own in LITEHRNET_STAGE2_CACHE"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(
            f"other users may write to {folder}, and what lies there is run: delete it "
            f"(`rm -r {shlex.quote(str(folder))}`) and run again"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return folder
