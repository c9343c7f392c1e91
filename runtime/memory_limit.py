"""Limits the memory of a process that opens an artifact: a few kilobytes of one can ask for gigabytes.

What counts is memory that can be written, not addresses: a library reserves those by the gigabyte for its threads.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

MOST_BYTES = 2**32

LIMITED, LIMITED_ADDRESSES = (
    ("sh", "-c", f'ulimit -c 0; ulimit -{kind} {MOST_BYTES // 2**10}; exec "$@"', "sh") for kind in "dv"
)
"""The words before a command, where there is a POSIX shell, that give it at most `MOST_BYTES`, and no core file.

The emulator takes a mapping that the first refuses for granted, and hangs; it reserves no addresses, so the second will
do for it.
"""


def limit_this_process() -> None:
    """Let this process have `MOST_BYTES` more than it has, where the system counts them, and leave no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    counted = Path("/proc/self/statm")
    if counted.is_file():
        most = int(counted.read_text().split()[5]) * resource.getpagesize() + MOST_BYTES
        with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
