"""Reads what stands beside every latency: the system, its cores and memory, versions and the source's revision."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from litehrnet_stage2.runtime.devices import DeviceFacts, local_device
from litehrnet_stage2.runtime.latency.result import Environment

PACKAGES = (
    "litehrnet-stage2",
    "numpy",
    "onnxruntime",
    "executorch",
    "torch",
    "ai-edge-litert",
    "coremltools",
)


def machine() -> DeviceFacts:
    """This machine, as any device describes itself.

    Raises:
        DeviceError: it has no `sh` to ask, or its processor is not supported.
    """
    with local_device() as device:
        return device.facts()


def environment(*, affinity: Sequence[int], load_1min_before: float | None) -> Environment:
    """This machine's software and resources; call it when the run is over."""
    return Environment(
        os=platform.platform(),
        python=platform.python_version(),
        memory_mib=_memory_mib(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        affinity=tuple(affinity),
        load_1min_before=load_1min_before,
        load_1min_after=load_1min(),
        versions=versions(PACKAGES),
        git_revision=git_revision(),
    )


def usable_cores() -> tuple[int, ...]:
    """Cores this process may run on; empty where the system has no such notion."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def load_1min() -> float | None:
    """The load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """The commit this code was run from, with `-dirty` if files differ; None for an installed package."""
    here = Path(__file__)
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)  # not a repository that merely holds the package
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()


def _memory_mib() -> int | None:
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
