"""A bundle takes its place whole or not at all, and an older one goes only when the new one is there."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from litehrnet_stage2.converters import replacement
from litehrnet_stage2.converters.exchange import NoExchangeError, exchange
from litehrnet_stage2.converters.replacement import check_replaceable, replacing
from litehrnet_stage2.reference.contract.manifest import BundleError, holds_bundle


def fill(folder: Path, mark: str) -> None:
    """As much of a bundle as tells it from other folders."""
    (folder / "content").write_text(mark)
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "golden_sha256": mark}))


def write(out: Path, mark: str) -> None:
    with replacing(out) as folder:
        fill(folder, mark)


def content(out: Path) -> str:
    return (out / "content").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_exchange(one: Path, other: Path) -> None:
    raise NoExchangeError("as on other file systems")


@pytest.fixture(params=["exchange", "two renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(replacement, "exchange", no_exchange)
    return str(request.param)


def test_this_system_exchanges_folders(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    exchange(tmp_path / "one", tmp_path / "other")
    assert content(tmp_path / "one") == "other"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "missing")


@pytest.mark.usefixtures("way")
def test_an_older_bundle_and_an_empty_folder_are_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for mark in ("first", "second"):
        write(tmp_path / "bundle", mark)
        assert content(tmp_path / "bundle") == mark
        assert names(tmp_path) == ["bundle"]
        assert names(tmp_path / "bundle") == ["content", "manifest.json"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("before", ["nothing", "bundle"])
def test_an_interruption_at_any_rename_leaves_what_was_there(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the new one; of two that come one after the other, too, and the next run leaves nothing but a bundle."""
    rename = Path.rename
    for stop_at in range(1, 6):
        if before == "bundle":
            write(tmp_path / "bundle", "old")
        calls = 0

        def interrupted(path: Path, target: Path, stop_at: int = stop_at) -> Path:
            nonlocal calls
            calls += 1
            if calls in (stop_at, stop_at + 1):
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        try:
            write(tmp_path / "bundle", "new")
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(Path, "rename", rename)
        kept = [path for path in (tmp_path / "bundle", *tmp_path.glob(".bundle.*/aside")) if holds_bundle(path)]
        assert kept or before == "nothing"
        replacement.recover(tmp_path / "bundle")
        assert set(names(tmp_path)) <= {"bundle"}
        if before == "bundle":
            assert content(tmp_path / "bundle") in ("old", "new")
        write(tmp_path / "bundle", "next")
        assert names(tmp_path) == ["bundle"]
        replacement.remove(tmp_path / "bundle")


def test_a_failure_of_the_second_rename_brings_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bundle", "old")
    monkeypatch.setattr(replacement, "exchange", no_exchange)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if (path / "manifest.json").exists() and path.name != "aside" and target == tmp_path / "bundle":
            raise OSError(errno.EIO, "Input/output error", str(path), None, str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "bundle", "new")
    assert content(tmp_path / "bundle") == "old"
    assert names(tmp_path) == ["bundle"]


def test_a_reader_during_replacements_always_finds_a_bundle(tmp_path: Path) -> None:
    out, missed, over = tmp_path / "bundle", 0, threading.Event()
    write(out, "first")

    def read() -> None:
        nonlocal missed
        while not over.is_set():
            missed += not holds_bundle(out)

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(300):
        write(out, str(index))
    over.set()
    reader.join()
    assert not missed


@pytest.mark.usefixtures("way")
def test_of_runs_that_end_at_once_one_stays_whole_and_nothing_else(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def run(mark: str) -> None:
        try:
            for _ in range(30):
                write(tmp_path / "bundle", mark)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(mark,)) for mark in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert names(tmp_path) == ["bundle"]
    assert content(tmp_path / "bundle") in ("a", "b", "c")


@pytest.mark.usefixtures("way")
def test_what_appears_at_the_place_meanwhile_and_is_no_bundle_stays(tmp_path: Path) -> None:
    def late() -> None:
        with replacing(tmp_path / "bundle") as folder:
            fill(folder, "new")
            (tmp_path / "bundle").mkdir()
            (tmp_path / "bundle/thesis.txt").write_text("years")

    with pytest.raises(BundleError, match="exists and is no bundle"):
        late()
    assert (tmp_path / "bundle/thesis.txt").read_text() == "years"
    assert names(tmp_path) == ["bundle"]


def test_what_appears_in_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(one: Path, other: Path) -> None:
        monkeypatch.setattr(replacement, "exchange", exchange)
        replacement.remove(other)
        other.mkdir()
        (other / "thesis.txt").write_text("years")
        exchange(one, other)

    write(tmp_path / "bundle", "old")
    monkeypatch.setattr(replacement, "exchange", late)
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write(tmp_path / "bundle", "new")
    assert (tmp_path / "bundle/thesis.txt").read_text() == "years"
    assert names(tmp_path) == ["bundle"]


# where a bundle can be put, which is checked before the work


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    for mark in ("first", "second"):
        write(tmp_path / "link", mark)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == "second"


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="is the current folder, which is not replaced: call this from"):
        check_replaceable(Path())


def test_a_mount_point_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one file system within itself too, which the numbers of its devices do not tell."""
    (tmp_path / "my volume").mkdir()
    named = str(tmp_path / "my volume").replace(" ", "\\040")
    (tmp_path / "mountinfo").write_text(f"36 35 98:0 /mnt1 {named} rw,noatime master:1 - ext3 /dev/root rw\n")
    monkeypatch.setattr(replacement, "_MOUNTS", tmp_path / "mountinfo")
    with pytest.raises(BundleError, match="is a mount point, which cannot be replaced as a whole: give a folder"):
        check_replaceable(tmp_path / "my volume")
    assert check_replaceable(tmp_path / "my volume/bundle") == tmp_path / "my volume/bundle"


def test_the_root_of_the_file_system_is_refused() -> None:
    with pytest.raises(BundleError, match="exists and is no bundle"):
        check_replaceable(Path("/"))


def _under_a_file(folder: Path) -> Path:
    (folder / "file").write_text("a file")
    return folder / "file" / "bundle"


def _circle(folder: Path) -> Path:
    (folder / "circle").symlink_to("circle")
    return folder / "circle"


def _long(folder: Path) -> Path:
    return folder / ("x" * 300)


def _fifo(folder: Path) -> Path:
    (folder / "bundle").mkdir()
    os.mkfifo(folder / "bundle/manifest.json")
    return folder / "bundle"


def _huge(folder: Path) -> Path:
    (folder / "bundle").mkdir()
    with (folder / "bundle/manifest.json").open("wb") as file:
        file.truncate(30 << 30)
    return folder / "bundle"


@pytest.mark.parametrize("make", [_under_a_file, _circle, _long, _fifo, _huge])
def test_what_cannot_become_a_bundle_is_a_sentence_at_once(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"(exists and is no bundle|cannot be (made|followed|looked at)).*[:,]"):
        check_replaceable(make(tmp_path))
