"""What every command shares: where it prints, how it reports progress, and how a mistake ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from litehrnet_stage2.reference.errors import Stage2Error
from litehrnet_stage2.reference.files import write_whole, written_in_place

out = Console()
"""Results, on standard output."""

err = Console(file=os.fdopen(os.dup(2), "w", buffering=1))
"""Progress and errors, on standard error; its own descriptor, so that `quiet` does not silence it."""

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries below print, and tracebacks.")]
_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\]")
"""A list of numbers in indented JSON: thousands of samples, a line each, are put on one."""


def writable(path: Path | None) -> Path | None:
    """Check, before the work, that a file can be written, and exit with status 2 if not: a callback of options."""
    if path is None or str(path) == "-":
        return path
    in_place = written_in_place(path)
    folder = path.resolve().parent
    why = None
    if path.is_dir():
        why = "it is a folder"
    elif in_place:
        why = None if os.access(path, os.W_OK) else "it is not there, or read-only"
    elif not folder.is_dir():
        why = f"there is no folder {path.parent}"
    elif not os.access(folder, os.W_OK):
        why = f"the folder {path.parent} is read-only"
    if why is not None:
        _print_error(f"{path} cannot be written: {why}")
        raise typer.Exit(2)
    return path


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", callback=writable, help="Also write the result here, as JSON; `-` is standard output."),
]


class Progress:
    """Names each step as it begins: a spinner in a terminal, a line elsewhere."""

    def __init__(self) -> None:
        self._status = err.status("starting")

    def __call__(self, step: str) -> None:
        """Begin a step."""
        if err.is_terminal:
            self._status.update(step)
        else:
            err.print(f"{step} ...", highlight=False)


@contextlib.contextmanager
def working(*, verbose: bool) -> Iterator[Progress]:
    """Run a command's work: libraries kept quiet unless `verbose`, a mistake turned into one sentence and exit 2."""
    progress = Progress()
    try:
        with contextlib.nullcontext() if verbose else _quiet(), progress._status:
            yield progress
    except KeyboardInterrupt:
        err.print("[bold]interrupted[/]: nothing was left half written")
        raise typer.Exit(130) from None
    except Exception as error:
        if verbose or not _is_mistake(error):
            err.print(traceback.format_exc(), markup=False, highlight=False)
        _print_error(_sentence(error))
        raise typer.Exit(2 if _is_mistake(error) else 3) from None


def write_json(result: Any, path: Path | None) -> None:
    """Write a dataclass (or plain data) as JSON; a file appears whole or not at all."""
    if path is None:
        return
    plain = dataclasses.asdict(result) if dataclasses.is_dataclass(result) and not isinstance(result, type) else result
    lines = json.dumps(plain, indent=2)
    write_text(_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", lines) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a file, whole or not at all, or standard output where the path is `-`."""
    if str(path) == "-":
        sys.stdout.write(text)
        return
    write_whole(path, text.encode())


def _print_error(sentence: str) -> None:
    err.print("[bold red]error:[/] ", end="")
    err.print(sentence, markup=False, highlight=False)


def _is_mistake(error: Exception) -> bool:
    """Whether the error is written for the user: ours, or the file system's, but no library's own `ValueError`.

    One that is raised in C counts as raised by its caller.
    """
    if isinstance(error, ValueError) and not isinstance(error, Stage2Error):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return str(frames[-1].f_globals.get("__name__")).startswith("litehrnet_stage2.")
    return isinstance(error, (Stage2Error, OSError, ImportError))


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ImportError) and error.name:
        return f"{error}: install what is missing with `pip install -e '.[all]'`"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and what native libraries write to descriptor 2, from the terminal."""
    sys.stderr.flush()
    saved = os.dup(2)
    with warnings.catch_warnings(), tempfile.TemporaryFile() as sink:
        warnings.simplefilter("ignore")
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
