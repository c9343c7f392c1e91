"""Reads the reply of a runner on a device: one line of JSON that is believed only where it can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse
from litehrnet_stage2.reference.errors import InputError, printable
from litehrnet_stage2.runtime.devices.device_errors import DeviceError, RunnerError
from litehrnet_stage2.runtime.devices.transport import Completed

_MOST_OUTPUTS = 64
_SIZES = {"<f4": 4, "<f8": 8, "<f2": 2, "|i1": 1, "|u1": 1, "<i4": 4, "<i8": 8}


@dataclass(frozen=True)
class Output:
    """One output of one sample: numpy's name of its dtype, and its shape. Its file has every sample, one by one."""

    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in _SIZES:
            raise InputError(f"the dtype {self.dtype!a} is none of {', '.join(_SIZES)}")
        if not 0 < len(self.shape) <= 8 or any(size < 0 for size in self.shape):
            raise InputError(f"the shape {list(self.shape)} is none")

    @property
    def size_bytes(self) -> int:
        """How many bytes its numbers take."""
        return math.prod(self.shape) * _SIZES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The times of a run, in the order taken, and what it left; see `NativeRun`."""

    runtime: str
    threads: int
    load_ms: float
    first_ms: float
    warmup_ns: tuple[int, ...]
    query_ns: tuple[int, ...]
    outputs_repeat: bool
    rss_peak_mib: float | None
    outputs: tuple[Output, ...]
    cpu_features: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        times = (self.load_ms, self.first_ms, *self.warmup_ns, *self.query_ns, self.rss_peak_mib or 0, self.threads)
        if any(number < 0 for number in times):
            raise InputError(f"{min(times)} is below 0")
        if len(self.outputs) > _MOST_OUTPUTS:
            raise InputError(f"{len(self.outputs)} outputs are more than {_MOST_OUTPUTS}")


@dataclass(frozen=True)
class Refusal:
    """Why the runner did not run the model."""

    kind: str
    message: str


def read_reply(done: Completed, device: str) -> Reply:
    """The reply of a runner that has ended.

    Raises:
        RunnerError: it refused, or the model failed.
        DeviceError: it said something else.
    """
    line = done.stdout.strip().rpartition("\n")[2]
    try:
        values: Any = parse(line)
    except CodecError as error:
        said = (done.stderr.strip() or done.stdout.strip())[-1000:] or "nothing"
        raise DeviceError(f"the runner on {device} ended with status {done.status} and said: {said}") from error
    try:
        if isinstance(values, dict) and values.get("error") is not None:
            refusal = decode(Refusal, values["error"], where="error")
            raise RunnerError(printable(refusal.kind)[:40], f"{device}: {printable(refusal.message)[:2000]}")
        return decode(Reply, values)
    except CodecError as error:
        raise DeviceError(f"the runner on {device} replied what makes no sense: {error}") from error
