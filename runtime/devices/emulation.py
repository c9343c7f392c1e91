"""64-bit Arm CPUs emulated by qemu-user: correctness and instruction counts, never time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litehrnet_stage2.reference.cache_folder import cache_root
from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.runtime.devices.cache import build_once, call, fingerprint
from litehrnet_stage2.runtime.devices.device_errors import DeviceError, MissingToolError
from litehrnet_stage2.runtime.devices.wheels import wheel


@dataclass(frozen=True, kw_only=True)
class CpuModel:
    """One CPU that the emulator can be.

    Attributes:
        name: as in `emulated:NAME`.
        qemu: the value of qemu's `-cpu`.
        midr: main ID register: implementer, variant, part, revision.
        features: instruction sets beyond the base, by Linux's names.
        kernels: the int8 dot-product instructions that the runtimes will choose.
    """

    name: str
    qemu: str
    midr: int
    features: tuple[str, ...]
    kernels: str

    def cpuinfo(self) -> str:
        """What `/proc/cpuinfo` of a machine with one such core says."""
        m = self.midr
        return (
            "processor\t: 0\nBogoMIPS\t: 100.00\n"
            f"Features\t: fp asimd aes pmull sha1 sha2 crc32 cpuid {' '.join(self.features)}\n"
            f"CPU implementer\t: 0x{m >> 24 & 0xFF:02x}\nCPU architecture: 8\n"
            f"CPU variant\t: 0x{m >> 20 & 0xF:x}\nCPU part\t: 0x{m >> 4 & 0xFFF:03x}\n"
            f"CPU revision\t: {m & 0xF}\n\n"
        )


_DOT = ("atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp")

# `max` alone turns SME on, whose emulation in qemu 7.2 computes garbage, so every model here leaves it off.
# `max` has no part number either, and ONNX Runtime crashes without one: it is shown a Neoverse N2's.
CPU_MODELS: Mapping[str, CpuModel] = {
    model.name: model
    for model in (
        CpuModel(name="cortex-a72", qemu="cortex-a72", midr=0x410FD083, features=(), kernels="none (NEON multiply)"),
        CpuModel(name="cortex-a76", qemu="cortex-a76", midr=0x414FD0B1, features=_DOT, kernels="SDOT"),
        CpuModel(name="neoverse-n1", qemu="neoverse-n1", midr=0x414FD0C1, features=_DOT, kernels="SDOT"),
        CpuModel(
            name="i8mm",
            qemu="max,sme=off",
            midr=0x410FD490,
            features=(*_DOT, "sve", "sve2", "i8mm", "bf16"),
            kernels="SMMLA",
        ),
    )
}

LIBRARY_WHEELS = {"onnxruntime": wheel("onnxruntime", "aarch64"), "litert": wheel("ai-edge-litert", "aarch64")}
"""By the names that the libraries have here."""

_PACKAGES = (
    *(
        "python3.11-minimal",
        "libpython3.11-minimal",
        "libpython3.11-stdlib",
        "libc6",
        "libgcc-s1",
        "libstdc++6",
    ),
    *("zlib1g", "libbz2-1.0", "liblzma5", "libexpat1", "libffi8", "libssl3", "libcrypt1", "libuuid1"),
)


@dataclass(frozen=True, kw_only=True)
class ArmPython:
    """An unpacked arm64 Python 3.11 with numpy, ONNX Runtime and LiteRT, run by its own loader under the emulator."""

    root: Path
    site_packages: tuple[Path, ...]

    def command(self) -> list[str]:
        """The words that start it under the emulator."""
        libraries = ":".join(str(self.root / p / "aarch64-linux-gnu") for p in ("lib", "usr/lib"))
        loader = self.root / "lib" / "ld-linux-aarch64.so.1"
        return [
            str(loader),
            "--library-path",
            libraries,
            str(self.root / "usr" / "bin" / "python3.11"),
            *("-s", "-B", "-P"),
        ]

    def env(self) -> dict[str, str]:
        """The variables with which it finds its library instead of this machine's."""
        return {
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": ":".join(map(str, self.site_packages)),
            # Without these two, importing takes another number of instructions each time.
            "PYTHONHASHSEED": "0",
            "OPENBLAS_NUM_THREADS": "1",
        }


def emulator(cpu: CpuModel, cache_dir: Path | None = None) -> list[str]:
    """The words before an arm64 program that run it on `cpu`.

    The emulator passes the kernel's files through, and libraries that ask `/proc/cpuinfo` for Arm parts
    crash on an x86 one, so each CPU has one of its own under the emulator's prefix.

    Raises:
        MissingToolError: qemu-user is not installed.
    """

    def build(folder: Path) -> None:
        (folder / "proc").mkdir()
        (folder / "proc" / "cpuinfo").write_text(cpu.cpuinfo())

    qemu = qemu_program()
    prefix = build_once((cache_dir or cache_root()) / f"cpu-{cpu.name}-{fingerprint(cpu.cpuinfo())}", build)
    return [qemu, "-cpu", cpu.qemu, "-L", str(prefix)]


def qemu_program() -> str:
    """The dynamically linked emulator; the static one loads no plugins.

    Raises:
        MissingToolError: it is not installed.
    """
    if found := shutil.which("qemu-aarch64"):
        return found
    raise MissingToolError(
        "`qemu-aarch64` is not installed: install Debian's package qemu-user (`apt-get install qemu-user`; "
        "qemu-user-static alone counts no instructions)"
    )


def prepare_emulation(cache_dir: Path | None = None, *, progress: Progress = silent) -> ArmPython:
    """Fetch and unpack what files other than `.pte` need under emulation, once, without touching the system.

    Raises:
        MissingToolError: apt-get or dpkg is missing: this is no Debian.
        DeviceError: a package cannot be fetched.
    """
    cache_dir = cache_dir or cache_root()

    def build(folder: Path) -> None:
        for tool in ("apt-get", "dpkg"):
            if not shutil.which(tool):
                raise MissingToolError(
                    f"`{tool}` is not installed: the emulator's arm64 Python comes out of Debian's packages, "
                    "so files other than `.pte` run under emulation on Debian 12 only"
                )
        apt = folder / "apt"
        (apt / "state" / "lists" / "partial").mkdir(parents=True)
        (apt / "cache" / "archives" / "partial").mkdir(parents=True)
        options = {
            "Dir::State": apt / "state",
            "Dir::State::status": os.devnull,
            "Dir::Cache": apt / "cache",
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "",
        }
        apt_get = [
            "apt-get",
            "-q",
            *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
        ]
        progress("reading Debian's list of arm64 packages")
        call([*apt_get, "update"], doing="reading Debian's list of arm64 packages (apt-get update)")
        progress(f"fetching {len(_PACKAGES)} arm64 packages")
        call([*apt_get, "download", *_PACKAGES], doing="fetching arm64 packages (apt-get download)", cwd=apt)
        for package in sorted(apt.glob("*.deb")):
            call(["dpkg", "-x", package, folder], doing=f"unpacking {package.name}")
        shutil.rmtree(apt)
        if not (folder / "usr" / "bin" / "python3.11").exists():
            raise DeviceError("Debian's arm64 packages held no python3.11: this needs the packages of Debian 12")

    return ArmPython(
        root=build_once(cache_dir / f"arm64-python3.11-{fingerprint(*_PACKAGES)}", build),
        site_packages=tuple(
            one.unpacked(cache_dir, progress=progress) for one in (wheel("numpy", "aarch64"), *LIBRARY_WHEELS.values())
        ),
    )
