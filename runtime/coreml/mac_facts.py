"""What a Mac says of itself: model, chip, the system's version and build, and its thermal state."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from importlib import metadata

from litehrnet_stage2.runtime.coreml.predict import Host

THERMAL_STATES = ("nominal", "fair", "serious", "critical")
"""`NSProcessInfo.ThermalState`, in order."""


def host() -> Host:
    """This Mac."""
    return Host(
        model=_say("sysctl", "-n", "hw.model"),
        chip=_say("sysctl", "-n", "machdep.cpu.brand_string"),
        macos=_say("sw_vers", "-productVersion"),
        os_build=_say("sw_vers", "-buildVersion"),
        coremltools=metadata.version("coremltools"),
    )


def version() -> tuple[int, ...]:
    """The version of macOS."""
    return tuple(int(part) for part in platform.mac_ver()[0].split("."))


def thermal_state() -> str:
    """`[[NSProcessInfo processInfo] thermalState]`, one of `THERMAL_STATES`."""
    ctypes.CDLL("/System/Library/Frameworks/Foundation.framework/Foundation")
    objc = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
    objc.objc_getClass.restype = objc.sel_registerName.restype = ctypes.c_void_p
    # objc_msgSend takes the type of the method that it calls, so there is a prototype for each result.
    to_object = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", objc))
    to_integer = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", objc))
    info = to_object(objc.objc_getClass(b"NSProcessInfo"), objc.sel_registerName(b"processInfo"))
    return THERMAL_STATES[to_integer(info, objc.sel_registerName(b"thermalState"))]


def _say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
