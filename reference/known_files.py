"""The artifacts that this user made, or tried and found harmless: by hash, in the cache.

Whoever opens an artifact asks here whether it comes from elsewhere. The answer outlives the process, so that a bundle
made a second ago is not tried first, and one that came from elsewhere is tried once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from litehrnet_stage2.reference.cache_folder import CacheError, cache_root, private_folder

_REMEMBERED: set[str] = set()  # where the cache cannot be used, this process still knows


def remember(sha256: str, how: str = "made") -> None:
    """Know an artifact from now on: `made` by this user, or in which library and version it was opened."""
    _REMEMBERED.add(f"{sha256}.{how}")
    with contextlib.suppress(OSError, CacheError):
        (private_folder(_folder()) / f"{sha256}.{how}").touch()


def is_known(sha256: str, how: str = "made") -> bool:
    """Whether an artifact is known so."""
    if f"{sha256}.{how}" in _REMEMBERED:
        return True
    try:
        return (private_folder(_folder()) / f"{sha256}.{how}").is_file()
    except (OSError, CacheError):
        return False


def _folder() -> Path:
    return cache_root() / "known"
