"""A device that lies: this machine's shell behind the transport of ssh and adb, with each answer replaced at will."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from litehrnet_stage2.runtime.devices.shell import ShellTransport
from litehrnet_stage2.runtime.devices.transport import MOST_FETCHED_BYTES, Completed, run_local


@dataclass
class Lies:
    """What the device does instead of what it is told: a shell script by occasion, `connect`, `run`, `put`, `get`."""

    scripts: dict[str, str] = field(default_factory=dict)
    transfer_s: float = 2.0
    most_bytes: int = MOST_FETCHED_BYTES


class HostileTransport(ShellTransport):
    """Honest but for its lies."""

    connect_timeout_s = 2.0

    def __init__(self, folder: Path, lies: Lies) -> None:
        super().__init__("the board")
        self._storage = folder
        self.lies = lies

    def _argv(self, script: str) -> list[str]:
        return ["sh", "-c", self.lies.scripts.get("run", script)]

    def _holder_argv(self, script: str) -> list[str]:
        return ["sh", "-c", self.lies.scripts.get("connect", script)]

    def _parent(self) -> str:
        return str(self._storage)

    def _transfer(self, local: Path, remote: str) -> Completed:
        script = self.lies.scripts.get("put", 'cp -r "$0" "$1"')
        return run_local(["sh", "-c", script, str(local), remote], timeout_s=self.lies.transfer_s)

    def _fetch(self, remote: str, local: Path) -> Completed:
        script = self.lies.scripts.get("get", 'cat "$0"')
        with local.open("wb") as file:
            return run_local(
                ["sh", "-c", script, remote],
                timeout_s=self.lies.transfer_s,
                into=file,
                most_bytes=self.lies.most_bytes,
            )
