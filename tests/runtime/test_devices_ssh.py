"""ssh, against a real sshd that the test starts on loopback with keys of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import Device, DeviceError, RunnerBuild
from litehrnet_stage2.runtime.devices.ssh import SshTransport
from litehrnet_stage2.runtime.parity import check_parity
from litehrnet_stage2.runtime.programs.device_program import device_program, open_device_session


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def runs(*words: str) -> bool:
    """Whether a process with exactly this command line is there."""
    line = "".join(f"{word}\0" for word in words).encode()
    for pid in processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == line:
                return True
    return False


@dataclass(frozen=True, kw_only=True)
class Board:
    """The sshd: its port, the client's configuration, and the folder where the board's temporary files go."""

    port: int
    config: Path
    known_hosts: Path
    temporary: Path
    server: subprocess.Popen[bytes]

    def transport(self) -> SshTransport:
        return SshTransport(host="127.0.0.1", user=getpass.getuser(), port=self.port, config=self.config)

    def sessions(self) -> list[int]:
        """The processes that serve the connections."""
        return [pid for pid in processes() if parent_of(pid) == self.server.pid]

    def left(self) -> list[str]:
        """What lies in the board's temporary folder."""
        return sorted(path.name for path in self.temporary.iterdir())


def wait_until(true: Callable[[], bool], what: str, *, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def start_sshd(sshd: str, folder: Path, *, wrapper: tuple[str, ...] = ()) -> Board:
    temporary = folder / "tmp"
    temporary.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv TMPDIR={temporary}\n"
    )
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config = folder / "config"
    config.write_text(
        f"Host *\n  UserKnownHostsFile {known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
        f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # without it sshd refuses to start as root
    with (folder / "log").open("wb") as log:
        command = [*wrapper, sshd, "-D", "-e", "-f", str(folder / "sshd_config")]
        server = subprocess.Popen(command, stderr=log)

    def listening() -> bool:
        assert server.poll() is None, (folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listening, "sshd listens")
    return Board(port=port, config=config, known_hosts=known_hosts, temporary=temporary, server=server)


@pytest.fixture
def board(need, tmp_path: Path) -> Iterator[Board]:
    need("ssh", "openssh-client")
    started = start_sshd(need("sshd", "openssh-server"), tmp_path)
    yield started
    started.server.terminate()
    started.server.wait()


@pytest.fixture
def transport(board: Board) -> Iterator[SshTransport]:
    opened = board.transport()
    yield opened
    opened.remove()


def test_pte_gives_the_golden_codes_and_nothing_is_left(board: Board, runner: RunnerBuild, bundle: Bundle) -> None:
    del runner
    with (
        Device("ssh:board", board.transport()) as device,
        open_device_session(bundle, "executorch", device) as session,
    ):
        result = check_parity(session, bundle.golden())
        run = device_program(session).measure(session.program.prepare(bundle.golden().x[:2]), warmup=2, iterations=5)
        assert len(board.left()) == 1
    assert result.codes_sha256 == bundle.manifest.golden_sha256
    assert len(run.query_ns) == 5
    assert run.load_ms is not None
    assert run.facts.kernel.startswith("Linux")
    assert not run.facts.emulated
    assert board.left() == []


def test_onnx_runs_where_the_board_has_onnxruntime(board: Board, bundle: Bundle) -> None:
    with (
        Device("ssh:board", board.transport(), python=[sys.executable]) as device,
        open_device_session(bundle, "onnxruntime", device) as session,
    ):
        result = check_parity(session, bundle.golden())
    assert result.codes_sha256 == bundle.manifest.golden_sha256


def test_instructions_of_a_real_device_are_not_counted(board: Board, runner: RunnerBuild, bundle: Bundle) -> None:
    del runner
    with (
        Device("ssh:board", board.transport()) as device,
        open_device_session(bundle, "executorch", device) as session,
        pytest.raises(ValueError, match="counted on emulated devices alone, and ssh:board is real"),
    ):
        device_program(session).count_instructions(session.program.prepare(bundle.golden().x))


def test_a_board_without_onnxruntime_is_told_to_install_it(board: Board, bundle: Bundle) -> None:
    with (
        Device("ssh:board", board.transport(), python=[sys.executable, "-S", "-I"]) as device,
        pytest.raises(DeviceError, match=r"No module named 'onnxruntime'.*install onnxruntime there"),
    ):
        open_device_session(bundle, "onnxruntime", device)


HOSTILE = ["a b", "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"', "\n", "-rf", "*", "~", "ü", "a\\b"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(transport: SshTransport, board: Board, tmp_path: Path, name: str) -> None:
    (source := tmp_path / name).write_text("content")
    transport.put(source, name)
    assert transport.run(["cat", "--", name], timeout_s=10).stdout == "content"
    assert transport.run(["printf", "%s", name], timeout_s=10).stdout == name
    transport.get(name, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    assert [path.name for path in Path(transport.folder).iterdir()] == [name]
    assert board.left() == [Path(transport.folder).name]


def test_folders_travel_whole(transport: SshTransport, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree" / "deep" / "run").chmod(0o755)
    transport.put(tmp_path / "tree", "tree")
    assert transport.run(["./tree/deep/run"], timeout_s=10).stdout == "ran\n"


def test_a_status_and_both_streams_come_back(transport: SshTransport) -> None:
    done = transport.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=10)
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_missing_file_is_named(transport: SshTransport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"'y\.npy' cannot be fetched from .*No such file"):
        transport.get("y.npy", tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()
    with pytest.raises(DeviceError, match="does not exist"):
        transport.put(tmp_path / "missing", "x")


def test_a_wrong_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "impostor"], check=True)
    board.known_hosts.write_text(f"[127.0.0.1]:{board.port} {(tmp_path / 'impostor.pub').read_text()}")
    with pytest.raises(DeviceError, match=r"(?s)HOST IDENTIFICATION HAS CHANGED.*if you know why"):
        board.transport().run(["true"], timeout_s=10)
    board.known_hosts.write_text("")
    with pytest.raises(DeviceError, match=r"(?s)Host key verification failed.*Connect once by hand"):
        board.transport().run(["true"], timeout_s=10)
    assert board.left() == []


def test_a_configuration_that_trusts_every_host_does_not_count(board: Board) -> None:
    board.known_hosts.write_text("")
    with board.config.open("a") as config:
        config.write("  StrictHostKeyChecking no\n")
    with pytest.raises(DeviceError, match="Host key verification failed"):
        board.transport().run(["true"], timeout_s=10)


def test_a_refused_key_and_a_closed_port_say_so(board: Board, tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").write_text("")
    with pytest.raises(DeviceError, match=r"(?s)Permission denied.*A key must work without a question"):
        board.transport().run(["true"], timeout_s=10)
    board.server.terminate()
    board.server.wait()
    with pytest.raises(DeviceError, match="Connection refused"):
        board.transport().run(["true"], timeout_s=10)


def test_a_dropped_connection_is_an_error_and_leaves_nothing(board: Board) -> None:
    transport = board.transport()
    transport.put(board.config, "config")
    unique = f"60.{os.getpid()}"

    def drop() -> None:
        wait_until(lambda: runs("sleep", unique), "the board runs the command")
        for session in board.sessions():
            os.kill(session, signal.SIGKILL)

    dropper = threading.Thread(target=drop)
    dropper.start()
    with pytest.raises(DeviceError, match=r"connection to .* was lost"):
        transport.run(["sleep", unique], timeout_s=30)
    dropper.join()
    wait_until(lambda: board.left() == [], "the board removed the work folder")
    wait_until(lambda: not runs("sleep", unique), "the board stopped the command")
    with pytest.raises(DeviceError, match="was lost"):
        transport.put(board.config, "config")
    transport.remove()
    transport.remove()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing(board: Board, tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from litehrnet_stage2.runtime.devices import Device\n"
        "from litehrnet_stage2.runtime.devices.ssh import SshTransport\n"
        "user, port, config = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])\n"
        "transport = SshTransport(host='127.0.0.1', user=user, port=port, config=config)\n"
        "with Device('ssh:board', transport) as device:\n"
        "    transport.put(config, 'config')\n"
        "    transport.run(['sleep', sys.argv[4]], timeout_s=60)\n"
    )
    unique = f"61.{os.getpid()}"
    words = [getpass.getuser(), str(board.port), str(board.config), unique]
    client = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.DEVNULL)

    wait_until(lambda: runs("sleep", unique), "the board runs the command")
    assert len(board.left()) == 1
    client.send_signal(how)
    assert client.wait(20) != 0
    wait_until(lambda: board.left() == [], "the board removed the work folder")
    wait_until(lambda: not runs("sleep", unique), "the board stopped the command")


def test_a_command_that_hangs_is_given_up_and_stopped(board: Board) -> None:
    unique = f"62.{os.getpid()}"
    transport = board.transport()
    with pytest.raises(DeviceError, match="did not end within 1 s"):
        transport.run(["sleep", unique], timeout_s=1)
    transport.remove()
    wait_until(lambda: not runs("sleep", unique), "the command is stopped")
    assert board.left() == []


def test_a_full_disk_is_said_and_nothing_is_left(need, tmp_path: Path) -> None:
    need("ssh", "openssh-client")
    sshd = need("sshd", "openssh-server")
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    tiny = 'mount -t tmpfs -o size=256k tmpfs "$0" && exec "$@"'
    if subprocess.run([*unshare, "sh", "-c", tiny, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no test mount a file system of its own")
    wrapper = (*unshare, "sh", "-c", tiny, str(tmp_path / "tmp"))
    board = start_sshd(sshd, tmp_path, wrapper=wrapper)
    (tmp_path / "large.bin").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    transport = board.transport()
    try:
        with pytest.raises(
            DeviceError, match=r"(?s)'large\.bin' cannot be put on .*/litehrnet-stage2.* has 0 KiB free"
        ):
            transport.put(tmp_path / "large.bin", "model")
        assert transport.run(["sh", "-c", "ls .."], timeout_s=10).stdout.split() == [Path(transport.folder).name]
        transport.remove()
        other = board.transport()
        listed = other.run(["sh", "-c", "ls .."], timeout_s=10).stdout.split()
        assert listed == [Path(other.folder).name]
        other.remove()
    finally:
        board.server.terminate()
        board.server.wait()
