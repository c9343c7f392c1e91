"""Builds the native runner for x86-64 or 64-bit Arm Linux, and the instruction counter for the emulator."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from litehrnet_stage2.reference.cache_folder import cache_root
from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.runtime.devices.cache import build_once, call, fingerprint
from litehrnet_stage2.runtime.devices.device_errors import DeviceError, MissingToolError
from litehrnet_stage2.runtime.devices.wheels import wheel

NATIVE_SOURCES = Path(__file__).resolve().parent.parent / "native"

_EXECUTORCH = {arch: wheel("executorch", arch) for arch in ("x86_64", "aarch64")}
EXECUTORCH_VERSION = _EXECUTORCH["aarch64"].version
_COMPONENTS = ("", "_threadpool", "_backend_xnnpack", "_kernels_optimized", "_kernels_quantized")
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
_SYSTEM_LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "libstdc++.so.6",
    "libgcc_s.so.1",
)
_DEBIAN_CROSS = {"x86_64": "g++-12-x86-64-linux-gnu", "aarch64": "g++-12-aarch64-linux-gnu"}


@dataclass(frozen=True, kw_only=True)
class RunnerBuild:
    """A runner with everything it loads, in one folder that can be copied to a device as it is.

    Attributes:
        arch: `x86_64` or `aarch64`.
        folder: holds the rest.
        binary: the program. Started directly, it uses the C library of the machine it is on.
        libraries: ExecuTorch's shared libraries, beside the binary.
        loader: the C library's loader, in `system/` with the C and C++ libraries of the compiler. It
            starts the runner where the device has an older C library or, as Android, another.
    """

    arch: str
    folder: Path
    binary: Path
    libraries: tuple[Path, ...]
    loader: Path

    def command(self, folder: str) -> list[str]:
        """The words that start the runner when the build lies at `folder` on the device."""
        system = f"{folder}/{self.loader.parent.name}"
        return [f"{system}/{self.loader.name}", "--library-path", f"{folder}:{system}", f"{folder}/runner"]


def host_arch() -> str:
    """`x86_64` or `aarch64`: this machine's.

    Raises:
        DeviceError: the native runner is for neither this system nor this processor.
    """
    arch = canonical_arch(platform.machine())
    if platform.system() != "Linux":
        raise DeviceError(f"the native runner is built for and on Linux, and this is {platform.system()}")
    return arch


def canonical_arch(machine: str) -> str:
    """`x86_64` or `aarch64` for what `uname -m` says.

    Raises:
        DeviceError: another processor.
    """
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(machine.lower(), machine.lower())
    if arch not in _EXECUTORCH:
        raise DeviceError(
            f"there is no ExecuTorch library for a processor {machine!r}: the runner is for "
            f"{' and '.join(_EXECUTORCH)} (a 32-bit system on a 64-bit board needs a 64-bit one)"
        )
    return arch


def build_runner(arch: str, cache_dir: Path | None = None, *, progress: Progress = silent) -> RunnerBuild:
    """The native runner for `arch`, built in seconds if it is not cached. Nothing of ExecuTorch is compiled.

    Raises:
        MissingToolError: no CMake or no compiler; the message names the Debian package.
        DeviceError: ExecuTorch's wheel cannot be fetched, or the compiler fails.
    """
    arch = canonical_arch(arch)
    cache_dir = cache_dir or cache_root()
    sources = sorted(NATIVE_SOURCES.glob("*.cpp")) + sorted(NATIVE_SOURCES.glob("*.h"))
    recipe = NATIVE_SOURCES / "CMakeLists.txt"
    key = fingerprint(*sources, recipe, _EXECUTORCH[arch].sha256)

    def build(folder: Path) -> None:
        compiler = find_compiler(arch)
        cmake = find_tool("cmake", package="cmake")
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        if not generator:
            find_tool("make", package="make")
        executorch = _executorch(arch, cache_dir, progress)
        progress(f"compiling the runner for {arch}")
        cross = [] if arch == host_arch() else ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={arch}"]
        tree = folder / "build"
        options = [
            f"-DCMAKE_CXX_COMPILER={compiler}",
            f"-DEXECUTORCH_ROOT={executorch}",
            f"-DEXECUTORCH_VERSION={EXECUTORCH_VERSION}",
            *cross,
            *generator,
        ]
        call([cmake, "-S", NATIVE_SOURCES, "-B", tree, *options], doing="configuring the runner")
        call([cmake, "--build", tree], doing="compiling the runner")
        (tree / "runner").rename(folder / "runner")
        shutil.rmtree(tree)
        for component in _COMPONENTS:
            shutil.copy2(executorch / "lib" / f"libexecutorch{component}.so", folder)
        system = folder / "system"
        system.mkdir()
        for name in (_LOADERS[arch], *_SYSTEM_LIBRARIES):
            found = Path(call([compiler, f"-print-file-name={name}"], doing=f"finding {name}").strip())
            if not found.is_absolute():
                raise DeviceError(f"the compiler {compiler} has no {name}, which the runner needs beside it")
            shutil.copy2(found.resolve(), system / name)

    folder = build_once(cache_dir / f"runner-{arch}-{key}", build)
    return RunnerBuild(
        arch=arch,
        folder=folder,
        binary=folder / "runner",
        libraries=tuple(folder / f"libexecutorch{component}.so" for component in _COMPONENTS),
        loader=folder / "system" / _LOADERS[arch],
    )


def build_instruction_counter(cache_dir: Path | None = None) -> Path:
    """The emulator plugin that counts instructions, as a shared library of this machine.

    Raises:
        MissingToolError: no C compiler.
    """
    source = NATIVE_SOURCES / "instructions.c"

    def build(folder: Path) -> None:
        compiler = find_tool("cc", "gcc", package="gcc")
        output = folder / "libinstructions.so"
        call(
            [compiler, "-O2", "-shared", "-fPIC", "-o", output, source],
            doing="compiling the instruction counter",
        )

    folder = build_once((cache_dir or cache_root()) / f"instructions-{fingerprint(source)}", build)
    return folder / "libinstructions.so"


def _executorch(arch: str, cache_dir: Path, progress: Progress) -> Path:
    """The folder with ExecuTorch's `lib/` and `include/` for `arch`: the installed one where it fits."""
    pinned = _EXECUTORCH[arch]
    if arch == host_arch() and (installed := importlib.util.find_spec("executorch")) is not None:
        for place in installed.submodule_search_locations or ():
            folder = Path(place)
            same = importlib.metadata.version("executorch").split("+")[0] == pinned.version
            if same and (folder / "lib" / "libexecutorch.so").is_file():
                return folder
    only = ("executorch/lib/", "executorch/include/")
    return pinned.unpacked(cache_dir, only=only, progress=progress) / "executorch"


def find_compiler(arch: str) -> Path:
    """The C++ compiler for `arch`: the host's or a cross compiler. Raises `MissingToolError`."""
    if arch == host_arch():
        return find_tool(os.environ.get("CXX", "g++"), "g++", "c++", package="g++")
    return find_tool(f"{arch}-linux-gnu-g++-12", f"{arch}-linux-gnu-g++", package=_DEBIAN_CROSS[arch])


def find_tool(*names: str, package: str) -> Path:
    """The first of the programs that is installed.

    Raises:
        MissingToolError: none is; the message names Debian's `package`.
    """
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    raise MissingToolError(
        f"`{names[0]}` is not installed: install Debian's package {package} (`apt-get install {package}`)"
    )
