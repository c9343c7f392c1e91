"""What this machine can do: runtimes, converters, baselines, devices, and how well it can be timed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass

from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS, LIBRARIES, RUNTIMES
from litehrnet_stage2.runtime.devices import DeviceError, check_devices
from litehrnet_stage2.runtime.latency import environment, monitor
from litehrnet_stage2.runtime.program import library_version
from litehrnet_stage2.runtime.session import RuntimeUnavailableError

INT8_FEATURES = {
    "avx512_vnni": "8-bit dot products (AVX-512 VNNI)",
    "avx_vnni": "8-bit dot products (AVX-VNNI)",
    "asimddp": "8-bit dot products (SDOT)",
    "i8mm": "8-bit matrix multiplication (SMMLA)",
    "sme": "SME: a runtime may choose its kernels, whose parity is a gate of its own",
}

PACKAGES = (
    *(("converter", name, row.made_with, row.extra) for name, row in ARTIFACTS.items() if row.exact),
    ("training", "qat", ("torch", "safetensors", "matplotlib"), "qat"),
    ("baseline", "fp32, stock", ("torch", "executorch", "torchao", "onnx", "onnxscript"), "convert"),
    ("baseline", "litert", ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"), "baselines"),
)
"""Group, name, packages it takes, and the extra that brings them."""


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One thing that this machine can do, or not.

    Attributes:
        group: what kind of thing it is.
        ready: whether it can.
        detail: with what; or why not.
        remedy: the command that adds it, where there is one.
    """

    group: str
    name: str
    ready: bool
    detail: str
    remedy: str | None = None


def capabilities() -> tuple[Capability, ...]:
    """Everything, in the order of a reader's interest; imports the runtimes, connects to nothing."""
    return (*_processor(), *_runtimes(), *_packages(), *_devices(), *_timing())


def _processor() -> Iterator[Capability]:
    try:
        facts = environment.machine()
    except DeviceError as error:
        yield Capability(group="processor", name=platform.machine(), ready=False, detail=str(error))
        return
    for kind in facts.cores:
        yield Capability(group="processor", name=kind.name, ready=True, detail=f"{len(kind.cores)} cores, {facts.arch}")
    has = [why for feature, why in INT8_FEATURES.items() if feature in facts.features]
    yield Capability(
        group="processor",
        name="int8 instructions",
        ready=bool(has),
        detail="; ".join(has) or f"none of {', '.join(INT8_FEATURES)}: int8 gains less here",
    )


def _runtimes() -> Iterator[Capability]:
    for name in dict.fromkeys(runtime.library for runtime in RUNTIMES.values() if runtime.artifact is not None):
        library = LIBRARIES[name]
        try:
            version = library_version(name)
        except RuntimeUnavailableError as error:
            remedy = install(library.extra) if library.extra else f"pip install {' '.join(library.packages)}"
            here = library.system in ("", platform.system())
            detail = str(error).split(":")[0]
            yield Capability(
                group="runtime", name=library.title, ready=False, detail=detail, remedy=remedy if here else None
            )
        else:
            yield Capability(group="runtime", name=library.title, ready=True, detail=version)


def _packages() -> Iterator[Capability]:
    for group, name, packages, extra in PACKAGES:
        found = environment.versions(packages)
        missing = [package for package in packages if package not in found]
        have = ", ".join(f"{package} {version}" for package, version in found.items())
        yield Capability(
            group=group,
            name=name,
            ready=not missing,
            detail=f"without {', '.join(missing)}" if missing else have,
            remedy=install(extra) if missing else None,
        )


def _devices() -> Iterator[Capability]:
    for check in check_devices():
        yield Capability(group="device", name=check.kind, ready=check.ready, detail=check.message)


def _timing() -> Iterator[Capability]:
    shown = {
        "use of cores by others": monitor.busy_s() is not None,
        "clock frequency": monitor.frequency_mhz() is not None,
        "temperature": monitor.temperature_c() is not None,
        "throttling": monitor.throttle_count() is not None,
        "binding to cores": bool(environment.usable_cores()),
    }
    for name, ready in shown.items():
        detail = "shown by this system" if ready else "not shown by this system: runs are judged without it"
        yield Capability(group="timing", name=name, ready=ready, detail=detail)


def install(extra: str) -> str:
    """The command that adds an extra."""
    return f"pip install -e '.[{extra}]'"
