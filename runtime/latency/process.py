"""The asking side of `worker`: a fresh process that is given turns and then asked for its answer."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any

from litehrnet_stage2.runtime.child import PYTHON
from litehrnet_stage2.runtime.latency.worker import Request

WORKER = "litehrnet_stage2.runtime.latency.worker"


@contextlib.contextmanager
def worker_process(request: Request, *, longest_s: float) -> Iterator[WorkerProcess]:
    """Start a worker with its request, and end it afterwards; `longest_s` is what it may take for a reply."""
    with (
        tempfile.TemporaryFile(mode="w+", errors="replace") as said,
        subprocess.Popen(
            [*PYTHON, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            # A library's own default must not give it more threads than the others have.
            env={**os.environ, "OMP_NUM_THREADS": str(request.candidate.threads)},
        ) as process,
    ):
        assert process.stdin is not None
        try:
            yield WorkerProcess(process, said, request, longest_s)
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):  # what a process that died did not take
                process.stdin.close()


class WorkerProcess:
    """A worker that is ready for a turn, has answered, or is dead."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str], request: Request, longest_s: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._said, self._longest_s = process, said, longest_s
        self._stdin, self._stdout = process.stdin, process.stdout
        self._late = False
        self._tell(json.dumps(dataclasses.asdict(request)))

    def turn(self) -> None:
        """Have it do its piece of work while nobody else does theirs; nothing if it is not ready for more."""
        if self._line == "\n":
            self._tell("")

    def answer(self) -> dict[str, Any]:
        """What it has to say in the end; `error` if it refused, died, or took too long."""
        if self._line == "\n":
            with contextlib.suppress(BrokenPipeError):
                self._stdin.close()
            self._listen()
        if self._late:
            return {"error": f"its process was ended: it gave no reply within {self._longest_s:g} s"}
        if self._process.wait() == 0:
            answer: dict[str, Any] = json.loads(self._line)
            return answer
        self._said.seek(0)
        last = self._said.read().strip().rpartition("\n")[2] or "nothing"
        return {"error": f"its process ended with status {self._process.returncode} and said: {last}"}

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(line + "\n")
            self._stdin.flush()
        self._listen()

    def _listen(self) -> None:
        """Wait for a reply: an empty line, an answer, or nothing from a process that died."""
        limit = threading.Timer(self._longest_s, self._end)
        limit.start()
        try:
            self._line = self._stdout.readline()
        finally:
            limit.cancel()

    def _end(self) -> None:
        self._late = True
        self._process.kill()
