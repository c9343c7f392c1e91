"""Run each session of a bundle 100,000 times and watch its memory: `python benchmarks/soak.py BUNDLE [RUNS]`.

Each runtime has a process of its own. Exit 1 if the resident set grew by more than 1 MiB after the first tenth.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from litehrnet_stage2.runtime import Bundle, open_session
from litehrnet_stage2.runtime.latency import BENCHABLE

LARGEST_GROWTH_KIB = 1024


def main() -> int:
    """Soak every runtime the bundle has an artifact for."""
    folder, runs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    artifacts = Bundle.open(folder).manifest.artifacts
    grown = 0
    for name, entry in BENCHABLE.items():
        if entry.target in artifacts:
            command = [sys.executable, __file__, "--one", str(folder), name, str(runs)]
            grown += subprocess.run(command, check=False).returncode
    return min(grown, 1)


def soak(folder: Path, runtime: str, runs: int) -> int:
    """Run one session; 1 if its memory grew."""
    bundle = Bundle.open(folder)
    session, x = open_session(bundle, runtime), bundle.golden().x[:1]
    due = session.run(x)
    out = tuple(y.copy() for y in due)
    settled = 0
    for i in range(runs):
        session.run(x, out=(out[0], out[1]))
        if i == runs // 10:
            settled = resident_kib()
    grown = resident_kib() - settled
    same = all((a == b).all() for a, b in zip(due, out, strict=True))
    print(f"{runtime}: {runs:,} runs, resident set {grown:+,} KiB, last result {'equal' if same else 'DIFFERENT'}")
    return 0 if same and grown <= LARGEST_GROWTH_KIB else 1


def resident_kib() -> int:
    """Of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    sys.exit(soak(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])) if sys.argv[1] == "--one" else main())
