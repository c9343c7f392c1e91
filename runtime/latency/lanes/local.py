"""The lane of this machine: the candidates of a round live side by side and take turns of a fifth of a second."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TypeVar

from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.latency import environment
from litehrnet_stage2.runtime.latency.lanes import Extras, Failed, ProcessReply, Tell, Trace
from litehrnet_stage2.runtime.latency.lanes.process import Task, WorkerProcess, worker_process
from litehrnet_stage2.runtime.latency.plan import Candidate, Plan
from litehrnet_stage2.runtime.latency.result import Environment, Memory, Sustained

T = TypeVar("T")

WORKER_LONGEST_S = 600.0
"""A process that takes longer for a reply is ended."""


class LocalLane:
    """Processes of this Python."""

    in_turns = True

    def __init__(self, bundle: Bundle, plan: Plan) -> None:
        self._bundle, self._plan = bundle, plan
        self._load_before = environment.load_1min()
        self.rounds = plan.processes

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Check the cores.

        Raises:
            ValueError: one is not this process's to use.
        """
        usable = environment.usable_cores()
        if outside := sorted(set(self._plan.affinity) - set(usable)):
            have = ", ".join(map(str, usable)) or "none: this system cannot bind processes"
            raise InputError(f"core {outside[0]} is not one this process may use (those are: {have})")

    def round(self, candidates: Sequence[Candidate], tell: Tell) -> Sequence[ProcessReply | Failed]:
        """A process of each, each other turn in reverse."""
        with contextlib.ExitStack() as ending:
            workers = []
            for candidate in candidates:
                tell(candidate.key)
                workers.append(ending.enter_context(self._start("time", candidate)))
            tell(f"{self._plan.turns} turns of each")
            for turn in range(self._plan.turns):
                for worker in workers if turn % 2 == 0 else reversed(workers):
                    worker.turn()
            return [worker.reply(ProcessReply) for worker in workers]

    def extras(self, candidate: Candidate, tell: Tell) -> Extras | Failed:
        """Memory, operators, and minutes without a pause, a process for each."""
        tell(f"memory and operators: {candidate.key}")
        memory = self._ask("memory", candidate, Memory)
        trace = self._ask("trace", candidate, Trace)
        sustained: Sustained | Failed | None = None
        if self._plan.sustained_min:
            tell(f"{self._plan.sustained_min:g} min without a pause: {candidate.key}")
            sustained = self._ask("sustain", candidate, Sustained)
        for found in (memory, trace, sustained):
            if isinstance(found, Failed):
                return found
        return Extras(memory=memory, trace=trace, sustained=sustained)  # type: ignore[arg-type]  # none has Failed

    def surroundings(self) -> tuple[DeviceFacts, Environment]:
        """This machine."""
        around = environment.environment(affinity=self._plan.affinity, load_1min_before=self._load_before)
        return environment.machine(), around

    def _ask(self, kind: str, candidate: Candidate, answer: type[T]) -> T | Failed:
        with self._start(kind, candidate) as worker:
            reply = worker.reply(answer)
        if isinstance(reply, Failed):
            return Failed(f"it ran when timed, but not for `{kind}`: {reply.why}")
        return reply

    def _start(self, kind: str, candidate: Candidate) -> contextlib.AbstractContextManager[WorkerProcess]:
        tier, sustained_s = self._plan.tier, self._plan.sustained_min * 60
        pieces = self._plan.processes * self._plan.turns
        task = Task(
            kind=kind,
            candidate=candidate,
            bundle=str(self._bundle.folder),
            queries=-(-tier.queries // pieces),
            seconds=sustained_s if kind == "sustain" else tier.seconds / pieces,
            affinity=self._plan.affinity,
        )
        return worker_process(task, longest_s=WORKER_LONGEST_S + sustained_s)
