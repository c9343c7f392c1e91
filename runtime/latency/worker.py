"""A fresh process that opens one artifact in one runtime, does one thing with it, and says how it went.

`python -m litehrnet_stage2.runtime.latency.worker`: the request is a line of JSON on standard input, the reply one on
standard output. To be timed it takes turns: it says an empty line when it is ready for one, gets an empty line to begin
it, and has no more when its input ends. Nothing but the artifact's own library is imported before it is opened.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.reference.integer_function import OUTPUTS, Quantization
from litehrnet_stage2.runtime.bundle import Bundle, Golden
from litehrnet_stage2.runtime.latency import plan, profile
from litehrnet_stage2.runtime.latency.monitor import Monitor, frequency_mhz, temperature_c, yardstick_ms
from litehrnet_stage2.runtime.parity import OutputParity, compare
from litehrnet_stage2.runtime.program import CODES_FORMATS, CodesProgram, Program, library_version, open_program
from litehrnet_stage2.runtime.session import OutputError, RuntimeUnavailableError, to_codes

MISTAKES = (ValueError, OSError, OutputError, RuntimeUnavailableError)
"""What has a sentence for the user; anything else is a defect and ends the process with its traceback."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to do.

    Attributes:
        mode: `time`, `memory`, `profile` or `sustain`.
        bundle: folder that has the inputs, and the codes that an exact candidate has to give.
        queries, seconds: at least so many samples, for at least so long: in a turn where there are turns.
        affinity: cores to stay on; empty for all.
    """

    mode: str
    candidate: plan.Candidate
    bundle: str
    queries: int = 0
    seconds: float = 0.0
    affinity: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The request that `dataclasses.asdict` and JSON carried."""
        candidate = plan.Candidate(**values["candidate"])
        return cls(**{**values, "candidate": candidate, "affinity": tuple(values["affinity"])})


class Opened:
    """A candidate, opened: how long that took, and the inputs it is run on."""

    def __init__(self, request: Request) -> None:
        self.request = request
        candidate = request.candidate
        self.bundle = Bundle.open(Path(request.bundle))
        self.golden = self.bundle.golden()
        content = _read(candidate)
        self.version = library_version(candidate.library)
        self.rss_before_load_mib = _rss_peak_mib()
        start = time.perf_counter_ns()
        program = open_program(candidate.library, content, threads=candidate.threads, exact=candidate.exact)
        self.load_ms = _ms(start)
        self.program = with_codes(program, self.bundle, candidate)
        self.x = self.program.prepare(self.golden.x[:1])

    def first_ms(self) -> float:
        """The first run: call it once, before any other."""
        start = time.perf_counter_ns()
        self.program.run(self.x)
        return _ms(start)

    def parity(self) -> dict[str, OutputParity]:
        """Every golden input, against the golden codes."""
        return parity(self.program, self.bundle, self.golden, exact=self.request.candidate.exact)


def with_codes(program: Program, bundle: Bundle, candidate: plan.Candidate) -> Program:
    """The program, quantising at its border if its artifact does not."""
    if candidate.codes is None:
        return program
    border = CODES_FORMATS[candidate.codes]
    return CodesProgram(program, bundle.manifest.input, bundle.manifest.outputs, border)


def parity(program: Program, bundle: Bundle, golden: Golden, *, exact: bool) -> dict[str, OutputParity]:
    """A program's codes against the golden ones, by output; a peer's floats are put on the golden grid first.

    Raises:
        OutputError: an exact program's outputs are not on the grid.
    """
    found: tuple[list[Any], list[Any]] = ([], [])
    for image in golden.x:
        outputs = program.finish(program.run(program.prepare(image[None])))
        for spec, y, codes in zip(bundle.manifest.outputs, outputs, found, strict=True):
            grid = Quantization(np.float32(spec.scale), spec.zero_point)
            codes.append(to_codes(y, spec) if exact else grid.quantize(y))
    return {
        name: compare(np.concatenate(codes), wanted, zero_point=spec.zero_point)
        for name, codes, wanted, spec in zip(
            OUTPUTS, found, (golden.y1, golden.y2), bundle.manifest.outputs, strict=True
        )
    }


def serve(request: Request, turns: Iterator[None]) -> dict[str, Any]:
    """Do what is asked; the reply is plain data."""
    if request.affinity:
        os.sched_setaffinity(0, request.affinity)
    if request.mode == "time":
        return _time(request, turns)
    modes: dict[str, Callable[[Request], dict[str, Any]]] = {
        "memory": _memory,
        "profile": _profile,
        "sustain": _sustain,
    }
    return modes[request.mode](request)


def main() -> None:
    """Entry point of the process."""
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the reply
    try:
        answer = serve(Request.from_dict(json.loads(sys.stdin.readline())), _turns(reply))
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


def _time(request: Request, turns: Iterator[None]) -> dict[str, Any]:
    opened = Opened(request)
    first_ms = opened.first_ms()
    before = opened.parity()
    answer = {
        "version": opened.version,
        "images": len(opened.golden.x),
        "parity_before": _plain(before),
        "load_ms": opened.load_ms,
        "first_ms": first_ms,
    }
    if request.candidate.exact and any(output.mismatches for output in before.values()):
        return answer  # a wrong artifact gets no number
    warmup, steady = _warm_up(opened)
    samples: list[list[float]] = []
    cpu_ms: list[float] = []
    yardsticks: list[float] = []
    alone = request.candidate.threads == 1
    monitor = Monitor()
    for _ in turns:
        yardsticks.append(yardstick_ms())
        opened.program.run(opened.x)  # the caches are others' since the last turn
        used_s = monitor.own_cpu_s
        with monitor:
            samples.append(_samples(opened, queries=request.queries, seconds=request.seconds))
        cpu_ms.append(1e3 * (monitor.own_cpu_s - used_s) / len(samples[-1]))
        if not alone:
            time.sleep(plan.REST_S)
    stretch = monitor.stretch()
    return {
        **answer,
        "parity_after": _plain(opened.parity()),
        "warmup_queries": warmup,
        "steady": steady,
        "samples_ms": samples,
        "turns_cpu_ms": cpu_ms if alone else [],
        "turns": [len(turn) for turn in samples],
        "cpu_ms": 1e3 * stretch.own_cpu_s / sum(map(len, samples)) if alone else None,
        "cpu_share": stretch.own_cpu_s / stretch.wall_s if alone else None,
        "other_cores": stretch.other_cores,
        "throttle_events": stretch.throttle_events,
        "yardstick_ms": float(np.median(yardsticks)),
        "frequency_mhz": frequency_mhz(),
        "temperature_c": temperature_c(),
    }


def _memory(request: Request) -> dict[str, Any]:
    opened = Opened(request)
    for _ in range(plan.MEMORY_QUERIES):
        opened.program.run(opened.x)
    return {"rss_before_load_mib": opened.rss_before_load_mib, "rss_peak_mib": _rss_peak_mib()}


def _profile(request: Request) -> dict[str, Any]:
    bundle = Bundle.open(Path(request.bundle))
    candidate = request.candidate
    golden = bundle.golden()

    def prepare(program: Program) -> Any:
        return with_codes(program, bundle, candidate).prepare(golden.x[:1])

    return dataclasses.asdict(profile.record(candidate, _read(candidate), prepare))


def _sustain(request: Request) -> dict[str, Any]:
    opened = Opened(request)
    _warm_up(opened)
    window_s = min(60.0, request.seconds / 2)
    medians = []
    for _ in range(round(request.seconds / window_s)):
        medians.append(float(np.median(_samples(opened, queries=2, seconds=window_s))))
    return {"window_s": window_s, "p50_ms": medians, "last_to_first": medians[-1] / medians[0]}


def _warm_up(opened: Opened) -> tuple[int, bool]:
    """Run until two windows agree; how many runs that took, and whether they ever did."""
    previous, count = 0.0, 0
    start = time.perf_counter()
    while time.perf_counter() - start < plan.WARMUP_LONGEST_S or count < 2 * plan.WARMUP_LEAST:
        median = float(np.median(_samples(opened, queries=plan.WARMUP_LEAST, seconds=0)))
        count += plan.WARMUP_LEAST
        if abs(median - previous) <= plan.WARMUP_AGREEMENT * median:
            return count, True
        previous = median
    return count, False


def _samples(opened: Opened, *, queries: int, seconds: float) -> list[float]:
    """Time of each run in ms, until there are enough and they took long enough."""
    run, x, clock = opened.program.run, opened.x, time.perf_counter_ns
    samples: list[float] = []
    end = clock() + int(seconds * 1e9)
    while len(samples) < queries or clock() < end:
        start = clock()
        run(x)
        samples.append((clock() - start) / 1e6)
    return samples


def _read(candidate: plan.Candidate) -> bytes:
    content = Path(candidate.path).read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != candidate.sha256:
        raise InputError(
            f"{candidate.path} has SHA-256 {found[:12]}..., not {candidate.sha256[:12]}...: "
            "it was changed, copy or convert it again"
        )
    return content


def _plain(outputs: Mapping[str, OutputParity]) -> dict[str, Any]:
    return {name: dataclasses.asdict(output) for name, output in outputs.items()}


def _rss_peak_mib() -> float:
    """Of this process since it started. `ru_maxrss` is inherited on Linux, so that it tells of the parent there."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6


if __name__ == "__main__":
    main()
