"""Devices: this machine, emulated Arm CPUs, boards over ssh, phones over adb, behind one interface."""

from litehrnet_stage2.reference.cache_folder import cache_root
from litehrnet_stage2.runtime.devices.device import (
    Device,
    EmulatedDevice,
    InstructionCount,
    NativeRun,
    RunOptions,
    local_device,
)
from litehrnet_stage2.runtime.devices.device_errors import DeviceError, MissingToolError, RunnerError
from litehrnet_stage2.runtime.devices.emulation import CPU_MODELS, prepare_emulation
from litehrnet_stage2.runtime.devices.facts import CoreKind, DeviceFacts
from litehrnet_stage2.runtime.devices.parse import ACCEPTED, DeviceCheck, check_devices, parse_device
from litehrnet_stage2.runtime.devices.toolchain import EXECUTORCH_VERSION, RunnerBuild, build_runner

__all__ = [
    "ACCEPTED",
    "CPU_MODELS",
    "EXECUTORCH_VERSION",
    "CoreKind",
    "Device",
    "DeviceCheck",
    "DeviceError",
    "DeviceFacts",
    "EmulatedDevice",
    "InstructionCount",
    "MissingToolError",
    "NativeRun",
    "RunOptions",
    "RunnerBuild",
    "RunnerError",
    "build_runner",
    "cache_root",
    "check_devices",
    "local_device",
    "parse_device",
    "prepare_emulation",
]
