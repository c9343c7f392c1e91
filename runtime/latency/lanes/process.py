"""The asking side of `worker`: a fresh process that is given turns and then asked for its reply."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TypeVar

from litehrnet_stage2.reference.contract.codec import CodecError, decode, parse
from litehrnet_stage2.runtime.child import PYTHON
from litehrnet_stage2.runtime.latency.lanes import Failed
from litehrnet_stage2.runtime.latency.plan import Candidate

T = TypeVar("T")

WORKER = "litehrnet_stage2.runtime.latency.lanes.worker"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to do.

    Attributes:
        kind: `time`, or a key of `worker.TASKS`.
        bundle: folder that has the inputs, and the codes that an exact candidate has to give.
        queries, seconds: at least so many samples, for at least so long: in a turn where there are turns.
        affinity: cores to stay on; empty for all.
    """

    kind: str
    candidate: Candidate
    bundle: str
    queries: int = 0
    seconds: float = 0.0
    affinity: tuple[int, ...] = ()


@contextlib.contextmanager
def worker_process(task: Task, *, longest_s: float) -> Iterator[WorkerProcess]:
    """Start a worker with its task, and end it afterwards; `longest_s` is what it may take for a reply.

    It ends by itself if this process is killed: its input ends then.
    """
    with (
        tempfile.TemporaryFile(mode="w+", errors="replace") as said,
        subprocess.Popen(
            [*PYTHON, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            errors="replace",
            # A library's own default must not give it more threads than the others have.
            env={**os.environ, "OMP_NUM_THREADS": str(task.candidate.threads)},
        ) as process,
    ):
        assert process.stdin is not None
        try:
            yield WorkerProcess(process, said, task, longest_s)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # what a process that died did not take
                process.stdin.close()


class WorkerProcess:
    """A worker that is ready for a turn, has replied, or is dead."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str], task: Task, longest_s: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._said, self._longest_s = process, said, longest_s
        self._stdin, self._stdout = process.stdin, process.stdout
        self._late = False
        self._tell(json.dumps(dataclasses.asdict(task)))

    def turn(self) -> None:
        """Have it do its piece of work while nobody else does theirs; nothing if it is not ready for more."""
        if self._line == "\n":
            self._tell("")

    def reply(self, kind: type[T]) -> T | Failed:
        """What it has to say in the end, or why it says nothing: it refused, died, or took too long."""
        if self._line == "\n":
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()
            self._listen()
        if self._late:
            return Failed(f"its process was ended: it gave no reply within {self._longest_s:g} s")
        if self.process.wait() == 0:
            return self._read(kind)
        self._said.seek(0)
        last = self._said.read().strip().rpartition("\n")[2] or "nothing"
        return Failed(f"its process ended with status {self.process.returncode} and said: {last}")

    def _read(self, kind: type[T]) -> T | Failed:
        try:
            answer = parse(self._line)
            if isinstance(answer, dict) and "error" in answer:
                return Failed(str(answer["error"]))
            return decode(kind, answer)
        except CodecError as error:
            return Failed(f"its process's reply cannot be read: {error}")

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(line + "\n")
            self._stdin.flush()
        self._listen()

    def _listen(self) -> None:
        """Wait for what it says next: an empty line, its reply, or nothing if it died."""
        limit = threading.Timer(self._longest_s, self._end)
        limit.daemon = True  # an interrupt while it starts must not have this process wait for it
        try:
            limit.start()
            self._line = self._stdout.readline()
        finally:
            limit.cancel()

    def _end(self) -> None:
        self._late = True
        self.process.kill()
