"""Keeps what is fetched or built once per machine: one process makes it, another that wants it waits.

What lies there is run, so it has to be what was put there: the folder is this user's alone, and every file is compared
with its hash each time.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from litehrnet_stage2.reference.cache_folder import CacheError, private_folder
from litehrnet_stage2.reference.files import write_whole
from litehrnet_stage2.runtime.child import ChildError, run_bounded
from litehrnet_stage2.runtime.devices.device_errors import DeviceError

LIST = "sha256.json"
"""In each folder of the cache: the hash of every other file in it."""

LONGEST_S = 1800.0
"""For a compiler, or a download."""


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, made by `build(fresh folder)` if it is not there, and verified by the hashes of its files.

    Each process builds beside and renames when done, so `folder` is complete whenever it exists, and of
    two that build at once the second to finish discards its copy.

    Raises:
        CacheError: the folder or the one that holds it belongs to somebody else, others may write to it, or a file
            in it is not what was put there.
    """
    private_folder(folder.parent)
    if not folder.is_dir():
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            build(beside)
            _write_list(beside)
            try:
                beside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    private_folder(folder)
    if not (folder / LIST).is_file():  # a version before this one made it, where nobody else could write
        _write_list(folder)
    _verify(folder)
    return folder


def _contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, but for the list, and where its links point, by path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file() and name != LIST:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _write_list(folder: Path) -> None:
    write_whole(folder / LIST, json.dumps(_contents(folder), indent=1).encode())


def _verify(folder: Path) -> None:
    try:
        due = json.loads((folder / LIST).read_bytes())
    except ValueError:
        due = {}
    found = _contents(folder)
    if due != found:
        changed = sorted(name for name in {*due, *found} if due.get(name) != found.get(name))
        raise CacheError(
            f"{folder} holds {changed[0] if changed else LIST}, which is not what was put there (it was changed or "
            f"cut short): delete the folder (`rm -r {shlex.quote(str(folder))}`) and run again"
        )


def fingerprint(*parts: str | Path) -> str:
    """12 hexadecimal digits of files' contents and strings, for the name of a cached folder."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:12]


def call(argv: Iterable[str | Path], *, doing: str, cwd: Path | None = None) -> str:
    """Run a local command and return its standard output.

    Raises:
        DeviceError: it failed; the message has `doing` and the end of what it printed.
    """
    try:
        done = run_bounded([str(word) for word in argv], timeout_s=LONGEST_S, cwd=cwd)
    except ChildError as error:
        raise DeviceError(f"{doing} failed: {error}") from error
    stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.status:
        raise DeviceError(f"{doing} failed with status {done.status}:\n{(stderr.strip() or stdout.strip())[-2000:]}")
    return stdout
