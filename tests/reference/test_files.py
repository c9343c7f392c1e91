"""Files are written whole or not at all, follow no planted link, and what a dead run left is swept."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from litehrnet_stage2.reference import scratch as scratch_module
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.files import read_regular, write_whole
from litehrnet_stage2.reference.scratch import dead_scratches, scratch, sweep


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_whole(tmp_path / "file", b"new")
    assert error.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_link_planted_under_the_name_of_the_temporary_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one whose name was foreseen."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".file.stage2-0000000000000000").symlink_to(tmp_path / "victim")
    monkeypatch.setattr(scratch_module.secrets, "token_hex", lambda size: "0" * 2 * size)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_the_names_of_temporary_files_are_not_foreseen(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        with scratch(tmp_path / "file", Path.mkdir) as path:
            seen.add(path.name)
    assert len(seen) == 2


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("made")
    write_whole(tmp_path / "link", b"new")
    write_whole(tmp_path / "dangling", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == (tmp_path / "made").read_bytes() == b"new"


def test_a_device_and_a_fifo_are_written_to_and_stay(tmp_path: Path) -> None:
    write_whole(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    os.mkfifo(tmp_path / "fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    write_whole(tmp_path / "fifo", b"through")
    reader.join()
    assert read == [b"through"]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_an_open_descriptor_is_written_to(tmp_path: Path) -> None:
    """As in `--json >(command)`, which a shell makes `/dev/fd/63`."""
    reading, writing = os.pipe()
    write_whole(Path(f"/dev/fd/{writing}"), b"through")
    os.close(writing)
    with open(reading, "rb") as file:  # noqa: PTH123 (a descriptor)
        assert file.read() == b"through"


def test_the_mode_is_the_older_files_or_what_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o640)
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "old", b"new")
        write_whole(tmp_path / "fresh", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "fresh").stat().st_mode) == 0o640


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("é" * 127), b"new")
    assert names(tmp_path) == ["é" * 127]


DIE = """
import os, signal, sys
from pathlib import Path
from litehrnet_stage2.reference.scratch import scratch
with scratch(Path(sys.argv[1]), Path.mkdir if sys.argv[2] == "folder" else Path.touch) as path:
    print("made", flush=True)
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def maker(target: Path, kind: str, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DIE, str(target), kind, what]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    return process


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_dead_run_left_is_swept_and_what_a_living_one_makes_is_not(kind: str, tmp_path: Path) -> None:
    with maker(tmp_path / "x", kind, "die") as dead, maker(tmp_path / "x", kind, "live") as living:
        assert dead.wait() == -signal.SIGKILL
        assert len(names(tmp_path)) == 2
        assert len(list(dead_scratches(tmp_path / "x"))) == 1
        write_whole(tmp_path / "x", b"new")
        assert len(names(tmp_path)) == 2
        living.communicate("")
    assert names(tmp_path) == ["x"]


def test_only_what_this_package_names_so_is_swept(tmp_path: Path) -> None:
    other = (".x.old", ".x.stage2-", ".x.stage2-0123", ".y.stage2-0123456789abcdef", ".x.stage2-0123456789abcdeg")
    for name in other:
        (tmp_path / name).mkdir()
    (tmp_path / ".x.stage2-0123456789abcdef").symlink_to(tmp_path / ".x.old")
    os.mkfifo(tmp_path / ".x.stage2-fedcba9876543210")
    left = names(tmp_path)
    sweep(tmp_path / "x")
    assert names(tmp_path) == left


def test_a_fifo_a_folder_and_a_huge_file_are_refused_before_they_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(InputError, match="no regular file"):
        read_regular(tmp_path / "fifo", most_bytes=10)
    with pytest.raises(InputError, match=r"has 32,212,254,720 bytes, and at most 1,024 are read"):
        read_regular(tmp_path / "huge", most_bytes=1024)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, most_bytes=10)
    write_whole(tmp_path / "file", b"content")
    assert read_regular(tmp_path / "file", most_bytes=7) == b"content"
