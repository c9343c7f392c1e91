"""A board reached with the system's ssh: the user's configuration and keys work, host keys are checked."""

from __future__ import annotations

import shlex
import shutil
import tarfile
import tempfile
from pathlib import Path

from litehrnet_stage2.runtime.devices.shell import ShellTransport
from litehrnet_stage2.runtime.devices.transport import MOST_FETCHED_BYTES, TRANSFER_TIMEOUT_S, Completed, run_local


class SshTransport(ShellTransport):
    """Everything goes over one connection, which the first session opens.

    Files travel as a tar stream: `scp` quotes remote paths by one rule before OpenSSH 9 and by another
    since, and small systems lack the server it needs now.

    Args:
        host: name or address, as `ssh` takes it, with no option's dash at its start.
        user: where the ssh configuration does not say it.
        port: where the ssh configuration does not say it.
        config: an ssh configuration file to use instead of the user's.
    """

    def __init__(
        self, *, host: str, user: str | None = None, port: int | None = None, config: Path | None = None
    ) -> None:
        super().__init__(f"{user}@{host}" if user else host)
        self._port = ["-p", str(port)] if port else []
        self._config = ["-F", str(config)] if config else []
        self._sockets: str | None = None

    def _options(self) -> list[str]:
        if self._sockets is None:
            self._sockets = tempfile.mkdtemp(prefix="s2-")
        return [
            "ssh",
            *self._config,
            *self._port,
            "-T",
            *("-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "ServerAliveInterval=5"),
            *("-o", f"ConnectTimeout={self.connect_timeout_s:.0f}"),
            *("-o", f"ControlPath={self._sockets}/s"),
        ]

    def _argv(self, script: str) -> list[str]:
        return [
            *self._options(),
            "-o",
            "ControlMaster=no",
            "--",
            self.label,
            f"exec sh -c {shlex.quote(script)}",
        ]

    def _holder_argv(self, script: str) -> list[str]:
        options = [*self._options(), "-o", "ControlMaster=yes", "-o", "ControlPersist=no"]
        return [*options, "--", self.label, f"exec sh -c {shlex.quote(script)}"]

    def _parent(self) -> str:
        return "${TMPDIR:-/tmp}"

    def _transfer(self, local: Path, remote: str) -> Completed:
        folder, name = remote.rsplit("/", 1)
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
                archive.add(local.resolve(), arcname=name, filter=_without_owner)
            file.seek(0)
            unpack = self._argv(f"tar -xf - -C {shlex.quote(folder)}")
            return run_local(unpack, timeout_s=TRANSFER_TIMEOUT_S, stdin=file)

    def _fetch(self, remote: str, local: Path) -> Completed:
        with local.open("wb") as file:
            return run_local(
                self._argv(f"cat {shlex.quote(remote)}"),
                timeout_s=TRANSFER_TIMEOUT_S,
                into=file,
                most_bytes=MOST_FETCHED_BYTES,
            )

    def _advice(self, said: str) -> str:
        if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
            return (
                f"\nThe host key of {self.label} is unknown or has changed. Connect once by hand with "
                "`ssh` and accept the key, if you know why"
            )
        if "Permission denied" in said:
            return f"\nA key must work without a question: try `ssh -o BatchMode=yes {self.label} true`"
        return ""

    def remove(self) -> None:
        """End the connection; the other side removes the folder."""
        super().remove()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
