"""An Android phone reached with `adb`, in the one folder where its shell may start programs."""

from __future__ import annotations

import re
from pathlib import Path

from litehrnet_stage2.runtime.child import ChildError, run_bounded
from litehrnet_stage2.runtime.devices.shell import ShellTransport
from litehrnet_stage2.runtime.devices.transport import MOST_FETCHED_BYTES, TRANSFER_TIMEOUT_S, Completed, run_local

FIRST_THAT_PAIRS = 30
"""Version of Android's platform-tools whose `adb` has `pair`, for a phone without a cable."""


class AdbTransport(ShellTransport):
    """`adb push` in, `adb shell` to run, `adb pull` out.

    Args:
        serial: which phone, as `adb devices` lists it; none where one is attached.
        program: the `adb` to use.
    """

    def __init__(self, *, serial: str | None = None, program: str = "adb") -> None:
        super().__init__(f"the phone {serial}" if serial else "the phone")
        self._adb = [program, *(["-s", serial] if serial else [])]

    def _argv(self, script: str) -> list[str]:
        # adb hands its words to the phone's shell joined by blanks, so the script is the shell's input line.
        return [*self._adb, "shell", script]

    def _parent(self) -> str:
        return "/data/local/tmp"

    def _transfer(self, local: Path, remote: str) -> Completed:
        return run_local([*self._adb, "push", str(local.resolve()), remote], timeout_s=TRANSFER_TIMEOUT_S)

    def _fetch(self, remote: str, local: Path) -> Completed:
        return run_local(
            [*self._adb, "pull", remote, str(local)],
            timeout_s=TRANSFER_TIMEOUT_S,
            most_bytes=MOST_FETCHED_BYTES,
            grows=local,
        )

    def _advice(self, said: str) -> str:
        if "unauthorized" in said:
            return "\nUnlock the phone and allow USB debugging for this computer"
        if "no devices" in said or "not found" in said:
            return "\nAttach one with USB debugging on; `adb devices` lists what is attached"
        if "more than one" in said:
            return "\nName one as `adb:SERIAL`; `adb devices` lists them"
        return ""


def describe_adb(program: Path) -> str:
    """An `adb`, its version, and whether it can pair with a phone without a cable; starts no server and no phone."""
    try:
        said = run_bounded([str(program), "version"], timeout_s=10.0).stdout.decode("utf-8", "replace")
    except ChildError as error:
        return f"{program}, of unknown version ({error})"
    found = re.search(r"^Version (\d+)[.\d]*", said, re.MULTILINE)
    if found is None:
        return f"{program}, of unknown version"
    if int(found[1]) >= FIRST_THAT_PAIRS:
        return f"{program} {found[0].removeprefix('Version ')}, by cable or paired"
    return (
        f"{program} {found[0].removeprefix('Version ')}, by cable; pairing without one needs "
        f"{FIRST_THAT_PAIRS} or later: Android's platform-tools have it"
    )
