"""A stand-in for `adb` with no phone behind it: a folder is the phone's storage, qemu-user its processor.

`push` and `pull` copy to and from the folder; `shell` hands the line, with the phone's paths mapped into
the folder, to this machine's shell. The one Arm program that the tests start, the C library's loader, is
wrapped in a script that runs it under the emulator when it is pushed. PHONE names the folder, EMULATOR the
words of the emulator.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

MAPPED = ("/data/local/tmp", "/sys/", "/proc/cpuinfo", "/proc/device-tree")


def main(words: list[str]) -> int:
    phone = Path(os.environ["PHONE"])
    serial = None
    if words[0] == "-s":
        serial, words = words[1], words[2:]
    attached = (phone / "serials").read_text().split()
    if serial not in (None, *attached):
        return fail(f"error: device '{serial}' not found")
    if not attached:
        return fail("error: no devices/emulators found")
    if serial is None and len(attached) > 1:
        return fail("error: more than one device/emulator")
    command, *rest = words
    if command == "push":
        local, remote = Path(rest[0]), Path(mapped(rest[1], phone))
        if local.is_dir():
            shutil.copytree(local, remote, dirs_exist_ok=True)
        else:
            shutil.copy(local, remote)
        for loader in remote.rglob("ld-linux-aarch64.so.1") if remote.is_dir() else ():
            emulate(loader)
        return 0
    if command == "pull":
        source = Path(mapped(rest[0], phone))
        if not source.is_file():
            return fail(f"adb: error: failed to stat remote object '{rest[0]}': No such file or directory")
        shutil.copy(source, rest[1])
        return 0
    if command == "shell":
        path = f"{phone}/bin:{os.environ['PATH']}"
        os.execve("/bin/sh", ["sh", "-c", mapped(" ".join(rest), phone)], {**os.environ, "PATH": path})
    return fail(f"adb: unknown command {command}")


def mapped(text: str, phone: Path) -> str:
    """Put the phone's paths into the folder, except those that the phone itself has said before."""
    paths = "|".join(map(re.escape, MAPPED))
    return re.sub(f"(?<!{re.escape(str(phone))})({paths})", lambda match: f"{phone}{match[1]}", text)


def emulate(loader: Path) -> None:
    real = loader.with_name(f"{loader.name}.real")
    loader.rename(real)
    loader.write_text(f'#!/bin/sh\nexec {os.environ["EMULATOR"]} {shlex.quote(str(real))} "$@"\n')
    loader.chmod(0o755)


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
