"""The lane of a device: a process there for each candidate and round, or instructions where the device is emulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from litehrnet_stage2.reference.contract.artifacts import LIBRARIES
from litehrnet_stage2.reference.contract.manifest import BundleError, FileEntry
from litehrnet_stage2.reference.errors import InputError
from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import Device, DeviceError, EmulatedDevice, NativeRun, RunOptions
from litehrnet_stage2.runtime.devices.facts import DeviceFacts
from litehrnet_stage2.runtime.latency.candidates import with_codes
from litehrnet_stage2.runtime.latency.lanes import Extras, Failed, ProcessReply, Tell, Timing
from litehrnet_stage2.runtime.latency.plan import COUNTED_QUERIES, WARMUP_LEAST, Candidate, Plan
from litehrnet_stage2.runtime.latency.result import Conditions, Environment, Instructions, Memory
from litehrnet_stage2.runtime.latency.sampling import agree
from litehrnet_stage2.runtime.latency.worth import Worth, assess
from litehrnet_stage2.runtime.programs.device_program import DeviceProgram
from litehrnet_stage2.runtime.session import OutputError

WARMUP_QUERIES = 4 * WARMUP_LEAST
THERMAL_STATES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's, by its numbers."""


class DeviceLane:
    """Processes on a device, one after another."""

    in_turns = False

    def __init__(self, bundle: Bundle, device: Device, plan: Plan) -> None:
        self._bundle, self._device, self._plan = bundle, device, plan
        self.rounds = 1 if device.emulated else plan.processes
        self._versions: dict[str, str] = {}
        self._affinity: tuple[int, ...] = ()

    def check(self, candidates: Sequence[Candidate]) -> None:
        """Ask the device what it is, and check the plan against it.

        Raises:
            ValueError: minutes without a pause, a core the device has not, or several threads on an emulated one.
            DeviceError: it cannot be reached.
        """
        if self._plan.sustained_min:
            raise InputError("--sustained runs on this machine alone: leave it out for a device")
        if self._device.emulated and (self._plan.affinity or any(c.threads != 1 for c in candidates)):
            raise InputError(
                "an emulated device counts the instructions of one thread: leave out --threads and --affinity"
            )
        self._before = self._device.facts()
        cores = sorted(core for kind in self._before.cores for core in kind.cores)
        if cores and (outside := sorted(set(self._plan.affinity) - set(cores))):
            raise InputError(f"{self._device.name} has no core {outside[0]} (it has: {', '.join(map(str, cores))})")

    def round(self, candidates: Sequence[Candidate], tell: Tell) -> Sequence[ProcessReply | Failed]:
        """A process of each, one after the other."""
        replies: list[ProcessReply | Failed] = []
        for candidate in candidates:
            tell(f"{candidate.key} on {self._device.name}")
            try:
                replies.append(self._reply(candidate))
            except (DeviceError, OutputError) as error:
                replies.append(Failed(str(error)))
        return replies

    def extras(self, candidate: Candidate, tell: Tell) -> Extras:
        """Nothing: a device has no tracer, and its memory is that of the timed processes."""
        return Extras()

    def surroundings(self) -> tuple[DeviceFacts, Environment]:
        """The device."""
        after = self._device.facts()
        return after, Environment(
            os=after.kernel,
            python="",
            memory_mib=None,
            cores=sum(len(kind.cores) for kind in after.cores),
            usable_cores=(),
            affinity=self._affinity,
            load_1min_before=self._before.load_1min,
            load_1min_after=after.load_1min,
            versions=self._versions,
            git_revision=None,
        )

    def _reply(self, candidate: Candidate) -> ProcessReply | Failed:
        path, inputs = Path(candidate.path), self._bundle.golden().real
        if not LIBRARIES[candidate.library].on_devices:
            return Failed(f"devices do not run {candidate.library}")
        if FileEntry.of(path.read_bytes()).sha256 != candidate.sha256:
            raise BundleError(f"{path} was changed since it was made: convert or build it again")
        inner = DeviceProgram(self._device, candidate.library, path, threads=candidate.threads or 1)
        program = with_codes(inner, self._bundle, candidate)
        timed: RunOptions = {
            "warmup": WARMUP_QUERIES,
            "iterations": self._plan.queries,
            "affinity": self._plan.affinity or None,
        }
        run = inner.measure(program.prepare(*inputs), **({} if self._device.emulated else timed))
        version = self._versions[candidate.library] = run.runtime.rpartition(" ")[2]
        self._affinity = run.affinity
        before = assess(program.finish(run.outputs), self._bundle, candidate)
        if before.failure(candidate, "") is not None:
            return ProcessReply(version=version, before=before)
        if isinstance(self._device, EmulatedDevice):
            counted = inner.count_instructions(program.prepare(*(x[:1] for x in inputs)), queries=COUNTED_QUERIES)
            instructions = Instructions(per_inference=counted.per_inference, queries=counted.queries)
            return ProcessReply(version=version, before=before, instructions=instructions)
        if len(run.warmup_ns) < 2 * WARMUP_LEAST or not run.query_ns or min(*run.warmup_ns, *run.query_ns) <= 0:
            return Failed(f"{self._device.name} reported no times that can be")
        if not run.outputs_repeat:
            return Failed("its outputs changed while it was timed: no number for it")
        return ProcessReply(
            version=version,
            before=before,
            load_ms=run.load_ms,
            first_ms=run.first_ms,
            timing=self._timing(run, before),
            memory=None
            if run.rss_peak_mib is None
            else Memory(rss_before_load_mib=None, rss_peak_mib=run.rss_peak_mib),
            affinity=run.affinity,
        )

    def _timing(self, run: NativeRun, outputs: Worth) -> Timing:
        facts = self._device.facts()
        samples = tuple(ns / 1e6 for ns in run.query_ns)
        windows = np.array(run.warmup_ns[-2 * WARMUP_LEAST :]).reshape(2, -1)
        previous, last = np.median(windows, axis=1)
        status = facts.thermal_status
        conditions = Conditions(
            round=0,
            p50_ms=float(np.median(samples)),
            turns=(len(samples),),
            frequency_mhz=facts.frequency_mhz,
            temperature_c=facts.temperature_c,
            load_1min=facts.load_1min,
            thermal=None if status is None else THERMAL_STATES[min(status, len(THERMAL_STATES) - 1)],
        )
        return Timing(
            after=outputs,  # the process itself compared them with those before
            warmup_queries=len(run.warmup_ns),
            steady=agree(float(previous), float(last)),
            samples_ms=(samples,),
            turns_cpu_ms=(),
            conditions=conditions,
        )
