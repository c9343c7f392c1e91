"""Judges one case: refused in one sentence, harmless, or a finding; in a process with a limit of memory and time."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from litehrnet_stage2.reference.errors import Stage2Error

MOST_BYTES = 2**31
LONGEST_SENTENCE = 3000


@dataclass(frozen=True)
class Case:
    """One thing to try.

    Attributes:
        what: it is, for the report.
        run: does it; raising the package's own error is a refusal, returning is taking it.
        due: whether taking it would be wrong, as with every accident.
    """

    what: str
    run: Callable[[], object]
    due: bool = False


class Victim(Protocol):
    """Makes the cases of one kind of file. A new kind is one module with this function and a line in `VICTIMS`."""

    def __call__(self, folder: Any, scratch: Any, seed: int) -> Iterator[Case]:
        """Cases without end from the originals in `folder`; files go to `scratch`."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case: `refused`, `harmless` or `finding`, and why."""

    what: str
    outcome: str
    said: str
    seconds: float


class TooLong(BaseException):
    """A case did not end in time."""


def judge(case: Case, most_s: float) -> Verdict:
    """Try a case for so many seconds at most."""
    start = time.monotonic()
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, most_s)
    try:
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            case.run()
        outcome, said = ("finding", "it was taken, and is not what it was") if case.due else ("harmless", "")
    except TooLong:
        outcome, said = "finding", f"it did not end within {most_s:g} s"
    except (Stage2Error, OSError) as error:
        outcome, said = _sentence(error)
    except BaseException as error:  # what is looked for: whatever is not a refusal
        outcome, said = "finding", _traceback(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return Verdict(case.what, outcome, said, time.monotonic() - start)


def _sentence(error: Exception) -> tuple[str, str]:
    said = str(error)
    if isinstance(error, OSError) and not error.strerror:
        return "finding", _traceback(error)
    if not said.strip() or len(said) > LONGEST_SENTENCE or any(not (c.isprintable() or c in "\n\t") for c in said):
        return "finding", f"its refusal is no sentence: {said[:200]!a}"
    return "refused", said


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-1500:]


def limit_this_process() -> None:
    """Give this process, and what it starts, so much memory beyond what it has, and no core file."""
    has = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (has + MOST_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(cases: Iterator[Case], start: int, count: int, most_s: float) -> None:
    """Judge the cases from `start` on, and print a line of JSON for each."""
    report = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for index in range(count):
        case = next(cases)
        if index < start:
            continue
        print(json.dumps({"begins": case.what[:300]}), file=report)
        print(json.dumps(asdict(judge(case, most_s))), file=report)


def _too_long(number: int, frame: object) -> None:
    raise TooLong
