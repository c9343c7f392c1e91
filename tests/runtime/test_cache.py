"""What lies in the cache is run, so it is this user's alone and verified each time it is used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from litehrnet_stage2.reference.cache_folder import CacheError
from litehrnet_stage2.runtime.devices.cache import LIST, build_once
from litehrnet_stage2.runtime.devices.wheels import pinned


def build(folder: Path) -> None:
    (folder / "lib").mkdir()
    (folder / "lib" / "loader.so").write_bytes(b"code")
    (folder / "lib" / "link.so").symlink_to("loader.so")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in a cache."""
    return build_once(tmp_path / "cache" / "runner", build)


def again(made: Path) -> Path:
    def never(folder: Path) -> None:
        raise AssertionError("it is there")

    return build_once(made, never)


def test_it_is_this_users_alone(made: Path) -> None:
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (made, made.parent)] == [0o700, 0o700]
    assert again(made) == made


@pytest.mark.parametrize("name", ["lib/loader.so", "lib/link.so", "lib/planted.so", LIST])
def test_what_was_changed_is_refused_with_the_folder_to_delete(made: Path, name: str) -> None:
    (made / name).unlink(missing_ok=True)
    (made / name).write_bytes(b"cod")
    with pytest.raises(CacheError, match=rf"{made} holds \S+, which is not what was put there .*`rm -r {made}`"):
        again(made)


def test_a_file_that_is_missing_is_named(made: Path) -> None:
    (made / "lib" / "loader.so").unlink()
    with pytest.raises(CacheError, match=r"holds lib/loader\.so, which is not what was put there"):
        again(made)


def test_a_folder_that_others_may_write_to_is_refused(made: Path) -> None:
    for folder in (made, made.parent):
        folder.chmod(0o777)
        with pytest.raises(CacheError, match=rf"other users may write to {folder}, and what lies there is run"):
            again(made)
        folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(made: Path) -> None:
    for folder in (made, made.parent):
        os.chown(folder, 65534, 65534)
        with pytest.raises(CacheError, match=rf"{folder} belongs to another user \(number 65534\)"):
            again(made)
        os.chown(folder, 0, 0)


def test_a_folder_that_others_could_only_read_becomes_private(made: Path) -> None:
    (made / LIST).unlink()  # as an earlier version left it
    made.chmod(0o755)
    again(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (made / "lib" / "loader.so").write_bytes(b"other")
    with pytest.raises(CacheError):
        again(made)


def test_a_planted_loader_is_not_run(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from litehrnet_stage2.runtime.devices import build_runner, DeviceError\n"
        "from litehrnet_stage2.runtime.devices.toolchain import host_arch\n"
        "made = build_runner(host_arch(), Path(sys.argv[1]))\n"
        "made.loader.write_bytes(b'planted')\n"
        "build_runner(host_arch(), Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "system/ld-linux" in done.stderr


def test_every_wheel_is_pinned_by_a_hash() -> None:
    assert {wheel.name for wheel in pinned()} == {"executorch", "numpy", "onnxruntime", "ai-edge-litert"}
    assert all(len(bytes.fromhex(wheel.sha256)) == 32 for wheel in pinned())
