"""Opens an artifact from elsewhere in a process of its own first, because its library may crash or hang on it.

Libraries that read artifacts in C++ do not survive every file: of edited `.pte` files some end the process; and a few
kilobytes can ask for gigabytes in any library. So an artifact that this user neither made nor tried is opened and run
once in a process that has limits, and only then here. It costs what importing the library costs, once for each artifact
and version of the library; a bundle made here is not tried at all.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path

from litehrnet_stage2.reference.contract.artifacts import LIBRARIES, Border
from litehrnet_stage2.reference.contract.manifest import Specs
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.known_files import is_known, remember
from litehrnet_stage2.runtime.child import PYTHON, ChildError, run_bounded

ELSEWHERE = ("coreml",)
"""The libraries that run in a process of their own anyway."""

LONGEST_S = 120.0

_LONGEST_REASON = 500


class TrialError(InputError):
    """An artifact cannot be opened or run; the message is the end of a sentence."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the process has to open, and how it is fed; `folder` is where an artifact lies that is one."""

    folder: str = ""
    library: str
    exact: bool
    inputs: Specs
    outputs: Specs
    border: Border


def try_first(request: Request, content: bytes | Path, *, sha256: str, version: str) -> None:
    """Try an artifact, unless it is known.

    Args:
        request: what to do with it.
        content: of its file; or its folder.
        sha256: of it.
        version: of the library.

    Raises:
        TrialError: the library refused it, crashed, hung, or asked for more memory than `memory_limit` has.
    """
    how = f"{request.library}-{version}"
    if request.library in ELSEWHERE or is_known(sha256) or is_known(sha256, how):
        return
    if isinstance(content, Path):
        request, content = dataclasses.replace(request, folder=str(content)), b""
    title = LIBRARIES[request.library].title
    words = [*PYTHON, "-m", "litehrnet_stage2.runtime.trial_process", json.dumps(dataclasses.asdict(request))]
    try:
        done = run_bounded(words, timeout_s=LONGEST_S, stdin=content)
    except ChildError as error:
        raise TrialError(
            f"{title} did not open it and run it once within {LONGEST_S:g} s in a process of its own: it is damaged, "
            "or made to do harm"
        ) from error
    if done.status < 0:
        raise TrialError(
            f"{title} was ended by {_signal(-done.status)} when it tried it in a process of its own: it is damaged, or "
            "made to do harm"
        )
    if done.status:
        reason = done.stdout.decode(errors="replace").strip() or "it said nothing"
        raise TrialError(f"{title} refuses it ({' '.join(reason.split())[:_LONGEST_REASON]})")
    remember(sha256, how)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
