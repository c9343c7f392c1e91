"""A device that never ends, never answers or lies is given up in one sentence, and what was put on it is removed."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.child import ChildError, run_bounded
from litehrnet_stage2.runtime.devices import Device, DeviceError, RunnerError
from litehrnet_stage2.runtime.devices.facts import parse_facts
from litehrnet_stage2.runtime.devices.reply import read_reply
from litehrnet_stage2.runtime.devices.transport import Completed
from tests.runtime.hostile_device import HostileTransport, Lies

ENDLESS = "exec yes"
NO_NEWLINE = "exec tr '\\0' x </dev/zero"
SILENT = "exec sleep 600"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Where the device has its work folders."""
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (NO_NEWLINE, "x{100}"),
        (SILENT, "it did not answer"),
        ("echo relative; exec sleep 600", "relative"),
        ("printf '/tmp/\\033[2J\\n'; exec sleep 600", r"\\x1b\[2J"),
        ("printf '/tmp/\\377\\n'; exec sleep 600", "/tmp/"),
        ("echo 'no room' >&2; exit 1", "no room"),
        ("(sleep 600) & echo 'kept open' >&2; exit 1", "kept open"),
    ],
)
def test_a_device_that_does_not_say_its_folder_is_given_up(storage: Path, script: str, said: str) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceError, match=f"cannot work on the board: .*{said}"):
        HostileTransport(storage, Lies({"connect": script})).put(Path(__file__), "x")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("script", [ENDLESS, NO_NEWLINE])
def test_a_command_that_prints_without_end_is_given_up(storage: Path, script: str) -> None:
    transport = HostileTransport(storage, Lies({"run": script}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DeviceError, match="sent more than 16,777,216 bytes and was stopped"):
        transport.run(["true"], timeout_s=60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    transport.remove()
    assert list(storage.iterdir()) == []


@pytest.mark.parametrize("occasion", ["put", "get"])
def test_a_transfer_that_never_ends_is_given_up_and_nothing_is_left(
    storage: Path, tmp_path: Path, occasion: str
) -> None:
    (tmp_path / "x").touch()
    transport = HostileTransport(storage, Lies({occasion: SILENT}, transfer_s=0.5))
    with pytest.raises(DeviceError, match=r"did not end within 0\.5 s and was stopped"):
        {"put": transport.put, "get": lambda local, name: transport.get(name, local)}[occasion](tmp_path / "x", "x")
    transport.remove()
    assert list(storage.iterdir()) == []


def test_a_file_that_never_ends_is_given_up(storage: Path, tmp_path: Path) -> None:
    transport = HostileTransport(storage, Lies({"get": "exec cat /dev/zero"}, transfer_s=60, most_bytes=2**20))
    with pytest.raises(DeviceError, match="sent more than 1,048,576 bytes and was stopped"):
        transport.get("x", tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 2**22
    transport.remove()


def test_a_program_that_writes_a_file_without_end_is_stopped(tmp_path: Path) -> None:
    grows = tmp_path / "grows"
    with pytest.raises(ChildError, match="sent more than 1,000 bytes"):
        run_bounded(["sh", "-c", f"exec yes >{grows}"], timeout_s=60, grows=grows, most_bytes=1000)


def test_a_grandchild_that_keeps_the_pipes_open_is_not_waited_for() -> None:
    start = time.monotonic()
    done = run_bounded(["sh", "-c", "sleep 600 & echo done"], timeout_s=300)
    assert (done.status, done.stdout) == (0, b"done\n")
    assert time.monotonic() - start < 30


def test_what_is_stopped_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(ChildError, match=r"did not end within 0\.2 s"):
        run_bounded(["sh", "-c", f"(sleep 2; touch {mark}) & wait"], timeout_s=0.2)
    time.sleep(2.5)
    assert not mark.exists()


@pytest.mark.parametrize(
    "line",
    [
        *("load\tabc", "load\t", "battery\t" + "9" * 5000, "battery\t³ Full", "status\t³"),
        *("highest\t0 " + "9" * 5000, "highest\t² ²", "current\t0 " + "9" * 400, "thermal\tcpu 9" + "9" * 5000),
        *("midr\t0 0x" + "f" * 5000, "midr\t² 0x1", "cpuinfo\tprocessor: ²", "cpuinfo\tCPU part: 007"),
    ],
)
def test_facts_that_cannot_be_are_left_out(line: str) -> None:
    facts = parse_facts(f"@machine\taarch64\n@{line}\n", device="board", arch="aarch64")
    assert (facts.load_1min, facts.battery_percent, facts.frequency_mhz, facts.big_cores) == (None, None, None, ())


def test_what_a_device_says_does_nothing_to_a_terminal(storage: Path) -> None:
    lies = Lies({"run": "printf '@machine\\taarch64\\n@soc\\t\\033[31mred\\n'"})
    with Device("board", HostileTransport(storage, lies)) as device:
        assert device.facts().soc == "\\x1b[31mred"


GOOD = {
    "runtime": "executorch 1.5.1", "threads": 1, "load_ms": 1.0, "first_ms": 1.0, "warmup_ns": [], "query_ns": [5],
    "outputs_repeat": True, "rss_peak_mib": None, "outputs": [{"dtype": "<f4", "shape": [1, 2]}],
}  # fmt: skip


def replied(values: object) -> Completed:
    return Completed(status=0, stdout=f"a library says hello\n{json.dumps(values)}\n", stderr="")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ns": None}, "query_ns is None, not a list"),
        ({"query_ns": ["5"]}, r"query_ns\[0\] is '5', not a whole number"),
        ({"query_ns": [-5]}, "-5 is below 0"),
        ({"load_ms": float("inf")}, "Infinity"),
        ({"load_ms": 1e300}, "load_ms is 1e\\+300"),
        ({"outputs_repeat": "yes"}, "outputs_repeat is 'yes', not true or false"),
        ({"outputs": {}}, "outputs is {}, not a list"),
        ({"outputs": [{"dtype": "<f4", "shape": [1]}] * 100}, "100 outputs are more than 64"),
        ({"outputs": [{"dtype": "O", "shape": [1]}]}, "the dtype 'O' is none of"),
        ({"outputs": [{"dtype": "<f4", "shape": [-1, -1]}]}, r"the shape \[-1, -1\] is none"),
        ({"runtime": "\ud800"}, "runtime is '.*', not Unicode text"),
        ({"error": "broken"}, "error is 'broken', not an object"),
        ({"error": {"kind": 5, "message": ""}}, "error.kind is 5, not text"),
    ],
)
def test_a_reply_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    assert read_reply(replied(GOOD), "board").query_ns == (5,)
    with pytest.raises(DeviceError, match=f"(?s)the runner on board .*{message}"):
        read_reply(replied({**GOOD, **change}), "board")


def test_outputs_that_are_too_large_are_not_fetched(storage: Path, tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    reply = json.dumps({**GOOD, "query_ns": [], "outputs": [{"dtype": "<f4", "shape": [1, 2**14, 2**14, 2]}]})
    says = f"printf '@machine\\taarch64\\n'; echo '{reply}'"
    lies = Lies({"run": says, "get": "exit 1"})
    with (
        Device("board", HostileTransport(storage, lies), python=["python3"]) as device,
        pytest.raises(DeviceError, match=r"board has 2,147,483,648 bytes of outputs, and at most 1,073,741,824 are"),
    ):
        device.run("litert", tmp_path / "model", np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("values", [None, [], 5, "text", {}, [[[]]]])
def test_a_reply_of_another_kind_is_refused(values: object) -> None:
    with pytest.raises(DeviceError, match="the runner on board replied what makes no sense"):
        read_reply(replied(values), "board")


def test_a_reply_nested_beyond_the_parser_is_refused() -> None:
    with pytest.raises(DeviceError, match="the runner on board ended with status 0 and said"):
        read_reply(Completed(status=0, stdout="[" * 100_000, stderr=""), "board")


def test_a_refusal_does_nothing_to_a_terminal() -> None:
    with pytest.raises(RunnerError, match=r"board: no \\x1b\[2J") as caught:
        read_reply(replied({"error": {"kind": "model", "message": "no \x1b[2J"}}), "board")
    assert caught.value.kind == "model"
