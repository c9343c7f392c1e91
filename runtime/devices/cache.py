"""Things fetched or built once per machine: where they lie, and how two processes make one at a time."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from litehrnet_stage2.runtime.child import PYTHON
from litehrnet_stage2.runtime.devices.errors import DeviceError, MissingToolError

Progress = Callable[[str], None]


def silent(_: str) -> None:
    """The progress callback that says nothing."""


def cache_root() -> Path:
    """`$LITEHRNET_STAGE2_CACHE`, else `litehrnet-stage2` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    if own := os.environ.get("LITEHRNET_STAGE2_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "litehrnet-stage2"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, made by `build(fresh folder)` if it is not there.

    Each process builds beside and renames when done, so `folder` is complete whenever it exists, and of
    two that build at once the second to finish discards its copy.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        build(beside)
        beside.chmod(0o755)
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def fingerprint(*parts: str | Path) -> str:
    """12 hexadecimal digits of files' contents and strings, for the name of a cached folder."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:12]


def call(argv: Iterable[str | Path], *, doing: str, cwd: Path | None = None) -> str:
    """Run a local command and return its standard output.

    Raises:
        DeviceError: it failed; the message has `doing` and the end of what it printed.
    """
    done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise DeviceError(f"{doing} failed with status {done.returncode}:\n{said}")
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One wheel of a Python package, for a platform that need not be this machine's."""

    name: str
    version: str
    platform: str
    sha256: str

    def unpacked(self, cache_dir: Path, *, only: tuple[str, ...] = ("",), progress: Progress = silent) -> Path:
        """The folder with the wheel's members that begin with one of `only`, fetched if it is not cached.

        Raises:
            MissingToolError: this interpreter has no pip.
            DeviceError: pip cannot fetch it, or its hash is another.
        """

        def build(folder: Path) -> None:
            if importlib.util.find_spec("pip") is None:
                raise MissingToolError(f"pip is needed to fetch {self.name}: run `python -m ensurepip`")
            progress(f"fetching {self.name} {self.version} for {self.platform}")
            with tempfile.TemporaryDirectory() as temporary:
                requirements = Path(temporary, "requirements.txt")
                requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
                pip = [*PYTHON, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
                pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--platform", self.platform]
                pip += ["--implementation", "cp", "--python-version", "3.11", "--dest", temporary]
                call([*pip, "-r", requirements], doing=f"fetching {self.name}=={self.version} with pip")
                (wheel,) = Path(temporary).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    members = [name for name in archive.namelist() if name.startswith(only)]
                    archive.extractall(folder, members)

        key = fingerprint(self.sha256, *only)
        return build_once(cache_dir / f"{self.name}-{self.version}-{self.platform}-{key}", build)
