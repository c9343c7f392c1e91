"""The names that users give devices: `local`, `emulated:CPU`, `ssh:[USER@]HOST[:PORT]`, `adb[:SERIAL]`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.progress import Progress, silent
from litehrnet_stage2.runtime.devices.adb import AdbTransport, describe_adb
from litehrnet_stage2.runtime.devices.device import Device, EmulatedDevice, local_device
from litehrnet_stage2.runtime.devices.device_errors import DeviceError
from litehrnet_stage2.runtime.devices.emulation import CPU_MODELS, qemu_program
from litehrnet_stage2.runtime.devices.ssh import SshTransport
from litehrnet_stage2.runtime.devices.toolchain import find_compiler, find_tool, host_arch

ACCEPTED = f"local, emulated:{'|'.join(CPU_MODELS)}, ssh:[USER@]HOST[:PORT], adb[:SERIAL]"

# Neither may begin with a dash, which ssh would take for an option. IPv6 addresses stand in brackets.
_SSH = re.compile(
    r"(?:(?P<user>[^@:\s-][^@:\s]*)@)?"
    r"(?P<host>[^@:\s\[\]-][^@:\s\[\]]*|\[[0-9a-fA-F:.]+(?:%\w+)?\])"
    r"(?::(?P<port>\d+))?"
)


def parse_device(text: str, *, cache_dir: Path | None = None, progress: Progress = silent) -> Device:
    """The device that `text` names. Nothing is connected or built until it is used.

    Raises:
        ValueError: no such kind of device, or its name is wrong; the message lists what is accepted.
    """
    kind, colon, rest = text.partition(":")
    if text == "local":
        return local_device(cache_dir=cache_dir, progress=progress)
    if kind == "emulated" and rest in CPU_MODELS:
        return EmulatedDevice(CPU_MODELS[rest], cache_dir=cache_dir, progress=progress)
    if kind == "emulated":
        raise InputError(f"unknown emulated CPU {rest!r}: the CPUs are {', '.join(CPU_MODELS)}")
    if kind == "ssh":
        match = _SSH.fullmatch(rest)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 0 < port < 65536):
            raise InputError(f"{text!r} names no ssh host: the form is ssh:[USER@]HOST[:PORT], as ssh:pi@board:22")
        ssh = SshTransport(host=match["host"].strip("[]"), user=match["user"], port=port)
        return Device(text, ssh, python=["env", "PYTHONSAFEPATH=1", "python3"], cache_dir=cache_dir, progress=progress)
    if kind == "adb" and (rest or not colon):
        adb = AdbTransport(serial=rest or None)
        return Device(text, adb, default_to_big_cores=True, cache_dir=cache_dir, progress=progress)
    raise InputError(f"unknown device {text!r}: the devices are {ACCEPTED}")


@dataclass(frozen=True, kw_only=True)
class DeviceCheck:
    """Whether this machine has what one kind of device needs."""

    kind: str
    ready: bool
    message: str


def check_devices() -> tuple[DeviceCheck, ...]:
    """What each kind of device needs of this machine, and whether it is there; connects to nothing."""
    return (
        _check("local", lambda: f"runner built with {find_compiler(host_arch())}"),
        _check("emulated", lambda: f"{qemu_program()}, runner built with {find_compiler('aarch64')}"),
        _check("ssh", lambda: str(find_tool("ssh", package="openssh-client"))),
        _check("adb", lambda: describe_adb(find_tool("adb", package="adb"))),
    )


def _check(kind: str, find: Callable[[], str]) -> DeviceCheck:
    try:
        return DeviceCheck(kind=kind, ready=True, message=find())
    except DeviceError as error:
        return DeviceCheck(kind=kind, ready=False, message=str(error))
