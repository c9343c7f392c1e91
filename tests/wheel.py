"""The wheel in a clean environment, as a user has it: `python tests/wheel.py` builds it and runs the demo from there.

Heavy packages are borrowed from this environment, so nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path) -> Path:
    """The wheel of the tracked files, built from a copy of them in `folder`."""
    copy, wheels = folder / "source", folder / "wheels"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(("tests/", "docs/", "benchmarks/")) and os.path.lexists(ROOT / name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    _pip("wheel", str(copy), "--no-build-isolation", "--wheel-dir", str(wheels))
    (wheel,) = wheels.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """The `bin` of a new environment in `folder` that has the wheel and borrows what it depends on."""
    venv.create(folder)
    _pip("--python", str(folder / "bin" / "python"), "install", str(wheel))
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    return folder / "bin"


def _pip(*arguments: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *quiet], check=True)


def main() -> None:
    """Run the demo of an installed wheel, outside of the checkout."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        programs = install(build_wheel(folder), folder / "clean")
        sys.exit(subprocess.run([programs / "stage2", "demo"], cwd=folder, check=False).returncode)


if __name__ == "__main__":
    main()
