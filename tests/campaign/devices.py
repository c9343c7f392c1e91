"""Hostile devices: what they say of themselves, what they reply, and what they send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from litehrnet_stage2.runtime.child import as_text
from litehrnet_stage2.runtime.devices import Device, DeviceError
from litehrnet_stage2.runtime.devices.facts import parse_facts
from litehrnet_stage2.runtime.devices.reply import read_reply
from litehrnet_stage2.runtime.devices.transport import Completed
from tests.campaign.damage import TEXTS, accident, as_json, lie, many_flips
from tests.campaign.judge import Case
from tests.runtime.hostile_device import HostileTransport, Lies

REPLY = {
    "runtime": "executorch 1.5.1", "samples": 2, "threads": 1, "load_ms": 1.5, "first_ms": 2.5, "warmup_ns": [],
    "query_ns": [5, 6, 7], "outputs_repeat": True, "rss_peak_mib": 20.0, "cpu_features": ["avx2"], "midr": "",
    "outputs": [{"dtype": "<f4", "shape": [1, 4, 16, 24]}, {"dtype": "<f4", "shape": [1, 8, 8, 12]}],
}  # fmt: skip
FACTS = b"""@machine\taarch64
@kernel\tLinux 6.1
@soc\tBoard
@load\t0.10 0.2 0.3 1/2 3
@midr\t0 0x00000000414fd0b1
@current\t0 1800000
@highest\t0 2400000
@governor\tschedutil
@thermal\tcpu 41500
@battery\t77 Full
@status\t0
@cpuinfo\tprocessor: 0
@cpuinfo\tFeatures: asimd asimddp
@cpuinfo\tCPU implementer: 0x41
"""
SENT = (
    "cat /dev/zero | head -c 3000000000", "printf '\\223NUMPY\\001\\000v\\000{}'", "printf ''", "exec sleep 600",
    "head -c 5000 /dev/urandom", "exit 1", "kill -9 $$", "yes | head -c 1000000", "exec yes",
)  # fmt: skip


def replies(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """One line of JSON from the runner, a refusal of its, or no JSON at all."""
    del folder, scratch
    rng = np.random.default_rng(seed)
    refusal = {"error": {"kind": "model", "message": "no"}}
    while True:
        good = refusal if rng.integers(5) == 0 else REPLY
        kind = ("accident", "flips", "lie", "lie", "text")[rng.integers(5)]
        what = ""
        if kind == "accident":
            what, bad = accident(as_json(good), rng)
        elif kind == "flips":
            bad = many_flips(as_json(good), rng)
        elif kind == "lie":
            what, values = lie(good, rng)
            bad = as_json(values)
        else:
            bad = TEXTS[rng.integers(len(TEXTS))]
        done = Completed(status=int(rng.integers(3)), stdout=as_text(bad), stderr="")
        yield Case(f"{kind} {what}", lambda done=done: read_reply(done, "board"))


def facts(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """What a device says of itself: nothing in it may stop the run."""
    del folder, scratch
    rng = np.random.default_rng(seed)
    while True:
        bad = FACTS
        for _ in range(int(rng.integers(1, 6))):
            bad = many_flips(bad, rng) if rng.integers(2) else _replaced(bad, rng)
        text = bad.decode(errors="replace")
        yield Case("facts", lambda text=text: parse_facts(text, device="board", arch="aarch64"))


def transfers(folder: Path, scratch: Path, seed: int) -> Iterator[Case]:
    """A whole run on a device that lies at one occasion; nothing may be left on it."""
    rng = np.random.default_rng(seed)
    inputs = np.load(folder / "features.npy")
    storage = scratch / "storage"
    storage.mkdir(exist_ok=True)
    while True:
        occasion = ("connect", "run", "put", "get")[rng.integers(4)]
        script = SENT[rng.integers(len(SENT))]
        if occasion == "run" and rng.integers(2):
            facts_then = f"case \"$*\" in *) printf '%s' '{FACTS.decode()}' ;; esac"
            script = facts_then + f"; printf '%s\\n' '{json.dumps(lie(REPLY, rng)[1])}'".replace("\0", "")
        lies = Lies({occasion: script}, transfer_s=1.0, most_bytes=2**22)

        def run(lies: Lies = lies) -> None:
            transport = HostileTransport(storage, lies)
            try:
                with Device("board", transport, python=["python3"]) as device:
                    device.run("onnxruntime", folder / "bundle" / "stage2.onnx", inputs, timeout_s=2)
            finally:
                transport.remove()
                if left := list(storage.iterdir()):
                    raise AssertionError(f"left on the device: {left}")
            raise DeviceError("it ran")

        yield Case(f"{occasion}: {script[:80]}", run)


def _replaced(content: bytes, rng: np.random.Generator) -> bytes:
    words = content.split()
    word = words[rng.integers(len(words))]
    evil = (b"9" * 5000, b"", b"-1", b"0x" + b"f" * 500, "²".encode(), b"nan", b"@", b"1e999", b"\xff", b"@load\t")
    return content.replace(word, evil[rng.integers(len(evil))], 1)
