"""The artifacts that this user made, or tried and found harmless: by hash, in the cache.

Whoever opens an artifact asks here whether it comes from elsewhere. The answer outlives the process, so that a bundle
made a second ago is not tried first, and one that came from elsewhere is tried once.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from litehrnet_stage2.reference.cache_folder import CacheError, cache_root, private_folder

_REMEMBERED: set[str] = set()  # where the cache cannot be used, this process still knows


def remember(content: bytes, how: str = "made") -> None:
    """Know content from now on: `made` by this user, or in which library and version it was `opened`."""
    mark = _mark(content, how)
    _REMEMBERED.add(mark)
    with contextlib.suppress(OSError, CacheError):
        (private_folder(_folder()) / mark).touch()


def is_known(content: bytes, how: str = "made") -> bool:
    """Whether content is known so."""
    mark = _mark(content, how)
    if mark in _REMEMBERED:
        return True
    try:
        return (private_folder(_folder()) / mark).is_file()
    except (OSError, CacheError):
        return False


def _folder() -> Path:
    return cache_root() / "known"


def _mark(content: bytes, how: str) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.{how}"
