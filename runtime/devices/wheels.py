"""The Python packages that go to devices, each pinned to one file by its hash in `wheels.toml`."""

from __future__ import annotations

import importlib.util
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.runtime.child import PYTHON
from litehrnet_stage2.runtime.devices.cache import build_once, call, fingerprint
from litehrnet_stage2.runtime.devices.device_errors import MissingToolError


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


@cache
def pinned() -> tuple[Wheel, ...]:
    """Every wheel of `wheels.toml`."""
    text = resources.files(__package__).joinpath("wheels.toml").read_text(encoding="utf-8")
    return tuple(Wheel(**entry) for entry in tomllib.loads(text)["wheel"])


def wheel(name: str, arch: str) -> Wheel:
    """The wheel of a package for `x86_64` or `aarch64`."""
    return next(one for one in pinned() if one.name == name and one.platform.endswith(f"_{arch}"))
