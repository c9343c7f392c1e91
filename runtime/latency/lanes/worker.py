"""A fresh process that opens one artifact in one runtime, does one thing with it, and says how it went.

`python -m litehrnet_stage2.runtime.latency.lanes.worker`: the task is a line of JSON on standard input, the reply one
on standard output. To be timed it takes turns: it says an empty line when it is ready for one, gets an empty line to
begin it, and has no more when its input ends. Other tasks end with their input: whoever asked is gone. Nothing but the
artifact's own library is imported before it is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from litehrnet_stage2.reference.contract.codec import decode, parse
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.latency import plan
from litehrnet_stage2.runtime.latency.candidates import with_codes
from litehrnet_stage2.runtime.latency.lanes import ProcessReply, Timing, Trace, traces
from litehrnet_stage2.runtime.latency.lanes.process import Task
from litehrnet_stage2.runtime.latency.monitor import Monitor, frequency_mhz, temperature_c, yardstick_ms
from litehrnet_stage2.runtime.latency.result import Conditions, Memory, Sustained
from litehrnet_stage2.runtime.latency.sampling import elapsed_ms, samples_ms, warm_up
from litehrnet_stage2.runtime.latency.worth import Worth, assess
from litehrnet_stage2.runtime.memory_limit import limit_this_process
from litehrnet_stage2.runtime.program import Arrays, Program, library_version, open_program
from litehrnet_stage2.runtime.session import OutputError, RuntimeUnavailableError

MISTAKES = (ValueError, OSError, OutputError, RuntimeUnavailableError)
"""What has a sentence for the user; anything else is a defect and ends the process with its traceback."""


class Opened:
    """A candidate, opened: how long that took, and the inputs it is run on."""

    def __init__(self, task: Task) -> None:
        self.candidate = candidate = task.candidate
        self.bundle = Bundle.open(Path(task.bundle))
        self.inputs = self.bundle.golden().real
        content = _read(candidate)
        self.version = library_version(candidate.library)
        limit_this_process()
        self.rss_before_load_mib = _rss_peak_mib()
        start = time.perf_counter_ns()
        program = open_program(candidate.library, content, threads=candidate.threads or 1, exact=candidate.exact)
        self.load_ms = elapsed_ms(start)
        self.program = with_codes(program, self.bundle, candidate)
        self.run = partial(self.program.run, self.program.prepare(*self.image(0)))

    def image(self, index: int) -> Arrays:
        """One of the golden inputs, `[1,C,H,W]` of each."""
        return tuple(x[index : index + 1] for x in self.inputs)

    def worth(self) -> Worth:
        """What it gives for every golden input."""
        program = self.program
        found = []
        for index in range(len(self.inputs[0])):
            outputs = program.finish(program.run(program.prepare(*self.image(index))))
            found.append([y.copy() for y in outputs])  # the next run may overwrite them
        return assess([np.concatenate(y) for y in zip(*found, strict=True)], self.bundle, self.candidate)


def main() -> None:
    """Entry point of the process."""
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the reply
    answer: dict[str, Any]
    try:
        task = decode(Task, parse(sys.stdin.readline()))
        if task.affinity:
            os.sched_setaffinity(0, task.affinity)
        if task.kind == "time":
            answer = dataclasses.asdict(time_in_turns(task, _turns(reply)))
        else:
            threading.Thread(target=_end_with_input, daemon=True).start()
            answer = dataclasses.asdict(TASKS[task.kind](task))
    except MISTAKES as error:
        answer = {"error": f"{error}"}
    json.dump(answer, reply)
    reply.close()


def _turns(reply: TextIO) -> Iterator[None]:
    """One item for each turn; the next is asked for when it is over."""
    while True:
        print(file=reply, flush=True)
        if not sys.stdin.readline():
            return
        yield


def _end_with_input() -> None:
    os.read(0, 1)
    os._exit(1)


def time_in_turns(task: Task, turns: Iterator[None]) -> ProcessReply:
    """Load, first run, parity, warm-up, turns, parity."""
    opened = Opened(task)
    start = time.perf_counter_ns()
    opened.run()
    first_ms = elapsed_ms(start)
    before = opened.worth()
    reply = ProcessReply(version=opened.version, before=before, load_ms=opened.load_ms, first_ms=first_ms)
    if before.failure(task.candidate, "") is not None:
        return reply
    warmup, steady = warm_up(opened.run)
    samples: list[list[float]] = []
    cpu_ms: list[float] = []
    yardsticks: list[float] = []
    alone = task.candidate.threads == 1
    monitor = Monitor()
    for _ in turns:
        yardsticks.append(yardstick_ms())
        opened.run()  # the caches are others' since the last turn
        used_s = monitor.own_cpu_s
        with monitor:
            samples.append(samples_ms(opened.run, queries=task.queries, seconds=task.seconds))
        cpu_ms.append(1e3 * (monitor.own_cpu_s - used_s) / len(samples[-1]))
        if not alone:
            time.sleep(plan.REST_S)
    stretch = monitor.stretch()
    conditions = Conditions(
        round=0,
        p50_ms=float(np.median(np.concatenate(samples))),
        turns=tuple(map(len, samples)),
        cpu_ms=1e3 * stretch.own_cpu_s / sum(map(len, samples)) if alone else None,
        cpu_share=stretch.own_cpu_s / stretch.wall_s if alone else None,
        other_cores=stretch.other_cores,
        yardstick_ms=float(np.median(yardsticks)),
        frequency_mhz=frequency_mhz(),
        throttle_events=stretch.throttle_events,
        temperature_c=temperature_c(),
    )
    timing = Timing(
        after=opened.worth(),
        warmup_queries=warmup,
        steady=steady,
        samples_ms=tuple(map(tuple, samples)),
        turns_cpu_ms=tuple(cpu_ms) if alone else (),
        conditions=conditions,
    )
    return dataclasses.replace(reply, timing=timing)


def memory(task: Task) -> Memory:
    """The resident set of a process that only loads and runs."""
    opened = Opened(task)
    for _ in range(plan.MEMORY_QUERIES):
        opened.run()
    return Memory(rss_before_load_mib=opened.rss_before_load_mib, rss_peak_mib=_rss_peak_mib())


def trace(task: Task) -> Trace:
    """Runs with the library's tracer on."""
    bundle = Bundle.open(Path(task.bundle))
    limit_this_process()
    image = [x[:1] for x in bundle.golden().real]

    def prepare(program: Program) -> Any:
        return with_codes(program, bundle, task.candidate).prepare(*image)

    return traces.record(task.candidate, _read(task.candidate), prepare)


def sustain(task: Task) -> Sustained:
    """Minutes without a pause."""
    opened = Opened(task)
    warm_up(opened.run)
    window_s = min(60.0, task.seconds / 2)
    medians = tuple(
        float(np.median(samples_ms(opened.run, queries=2, seconds=window_s)))
        for _ in range(round(task.seconds / window_s))
    )
    return Sustained(window_s=window_s, p50_ms=medians, last_to_first=medians[-1] / medians[0])


TASKS: dict[str, Callable[[Task], Any]] = {"memory": memory, "trace": trace, "sustain": sustain}
"""Besides `time`."""


def _read(candidate: plan.Candidate) -> bytes:
    content = Path(candidate.path).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != candidate.sha256:
        raise InputError(
            f"{candidate.path} has SHA-256 {found[:12]}..., not {candidate.sha256[:12]}...: "
            "it was changed, copy or convert it again"
        )
    return content


def _rss_peak_mib() -> float:
    """The peak of this process since it started; on Linux `ru_maxrss` is inherited, and would be the parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main()
