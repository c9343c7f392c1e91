"""What every command shares: where it prints, how it reports progress, and how a mistake ends it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from litehrnet_stage2.apps import streams
from litehrnet_stage2.reference.errors import InputError, Stage2Error, quotable
from litehrnet_stage2.reference.files import write_whole, written_in_place

out = Console()
"""Results, on standard output."""

err = Console(file=streams.standard_error())
"""Progress and errors, on standard error; its own descriptor, so that `quiet` does not silence it."""

Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the libraries below print, and tracebacks.")]
_NUMBERS = re.compile(r"\[\n([-+.,\deE\s]+)\]")
"""A list of numbers in indented JSON: thousands of samples, a line each, are put on one."""


def writable(path: Path | None) -> Path | None:
    """Check, before the work, that a file can be written, and exit with status 2 if not: a callback of options."""
    if path is None or str(path) == "-":
        return path
    _check_folder()
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
        print_error(f"{path} cannot be written: {why}")
        raise typer.Exit(2)
    return path


JsonFile = Annotated[
    Path | None,
    typer.Option("--json", callback=writable, help="Also write the result here, as JSON; `-` is standard output."),
]


class Spinner:
    """Names each step as it begins: a spinner in a terminal, a line elsewhere."""

    def __init__(self) -> None:
        self.shown = err.status("starting", spinner="dots" if err.encoding.startswith("utf") else "line")

    def __call__(self, step: str) -> None:
        """Begin a step."""
        if err.is_terminal:
            self.shown.update(escape(step))
        else:
            err.print(f"{step} ...", markup=False, highlight=False)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or a request to end that came as another signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run(command: Callable[[], object]) -> int:
    """Run a command line to its end; the exit status means the same whatever becomes of what it prints.

    0 is success, 1 that a comparison failed, 2 that the user has to mend something, 3 a fault of the program, and
    128 and the signal's number that it was stopped.
    """
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
            signal.signal(number, _stop)
    try:
        status = _status(command)
        sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        return _interrupted(stopped)
    except Exception as error:
        return _failed(error, verbose=False)
    return status


@contextlib.contextmanager
def mistakes(*, verbose: bool) -> Iterator[None]:
    """Turn a mistake into one sentence and exit 2, a fault into a traceback and exit 3."""
    try:
        _check_folder()
        yield
    except KeyboardInterrupt as stopped:
        raise typer.Exit(_interrupted(stopped)) from None
    except typer.Exit:
        raise
    except Exception as error:
        raise typer.Exit(_failed(error, verbose=verbose)) from None


@contextlib.contextmanager
def working(*, verbose: bool) -> Iterator[Spinner]:
    """Run a command's work: libraries kept quiet unless `verbose`, and `mistakes` as it has them."""
    progress = Spinner()
    with mistakes(verbose=verbose), contextlib.nullcontext() if verbose else _quiet(), progress.shown:
        yield progress


def table(*columns: str, title: str | None = None, right: Collection[str] = ()) -> Table:
    """A slim table that cuts no name: what does not fit into its column goes on in the next line."""
    made = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold", justify="right" if column in right else "left")
    return made


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
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
        return
    write_whole(path, text.encode())


def warn(sentence: str) -> None:
    """Print a warning for the user on standard error."""
    err.print("[bold yellow]warning:[/] ", end="")
    err.print(quotable(sentence), markup=False, highlight=False)


def print_error(sentence: str) -> None:
    """Say on standard error what was wrong."""
    err.print("[bold red]error:[/] ", end="")
    err.print(quotable(sentence), markup=False, highlight=False)


def _is_mistake(error: Exception) -> bool:
    """Whether it is the user's to mend: ours that says so, the file system's, or a package that is missing."""
    return isinstance(error, (Stage2Error, OSError, ImportError))


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
        return (
            f"{error.strerror}, where the result goes or where temporary files do: make room, or name another folder "
            "for these in TMPDIR"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ImportError) and error.name:
        return f"{error}: install what is missing with `pip install -e '.[all]'`"
    return str(error) or type(error).__name__


def _status(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _stop(number: int, _: object) -> None:
    raise Stopped(number)


def _interrupted(stopped: KeyboardInterrupt) -> int:
    err.print("[bold]interrupted[/]: nothing was left half written")
    return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)


def _failed(error: Exception, *, verbose: bool) -> int:
    mistake = _is_mistake(error)
    if verbose or not mistake:
        err.print(traceback.format_exc(), markup=False, highlight=False)
    print_error(_sentence(error))
    return 2 if mistake else 3


def _check_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:  # some libraries end the process there, without a word
        raise InputError("the current folder was deleted: change to another one, with `cd`") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and what native libraries write to descriptor 2, from the terminal."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
