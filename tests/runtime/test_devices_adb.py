"""adb, through a stand-in program (`adb_stand_in.py`). No phone was used: what is tested is this side of adb."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.devices import CPU_MODELS, Device, DeviceError, RunnerBuild
from litehrnet_stage2.runtime.devices.adb import AdbTransport
from litehrnet_stage2.runtime.devices.emulation import emulator
from litehrnet_stage2.runtime.parity import check_parity
from litehrnet_stage2.runtime.programs.device_program import open_device_session

BIG_CORE = max(os.sched_getaffinity(0))
CPUINFO = """\
processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


class Phone:
    """The stand-in's folder, laid out as a phone that has one big core."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "data/local/tmp"
        self.temporary.mkdir(parents=True)
        self.attach("STANDIN")
        self._file("proc/cpuinfo", CPUINFO)
        for core, khz in {100: 1700000, BIG_CORE: 2900000}.items():
            self._file(f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", f"{khz}\n")
            self._file(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq", f"{khz}\n")
        self._file("sys/class/thermal/thermal_zone0/type", "cpu-big\n")
        self._file("sys/class/thermal/thermal_zone0/temp", "41500\n")
        self._file("sys/class/power_supply/battery/capacity", "77\n")
        self._file("sys/class/power_supply/battery/status", "Discharging\n")
        self._program("uname", 'case "$1" in -m) echo aarch64 ;; *) echo Linux 5.15-android ;; esac')
        self._program("getprop", "echo Stand-in SoC")
        self._program("dumpsys", "echo 'Thermal Status: 2'")
        self.adb = folder / "adb"
        words = emulator(CPU_MODELS["cortex-a76"])
        stand_in = Path(__file__).with_name("adb_stand_in.py")
        environment = f"PHONE={shlex.quote(str(folder))} EMULATOR={shlex.quote(shlex.join(words))}"
        self.adb.write_text(f'#!/bin/sh\n{environment} exec {sys.executable} {stand_in} "$@"\n')
        self.adb.chmod(0o755)

    def attach(self, *serials: str) -> None:
        (self.folder / "serials").write_text(" ".join(serials))

    def transport(self, serial: str | None = None) -> AdbTransport:
        return AdbTransport(serial=serial, program=str(self.adb))

    def device(self) -> Device:
        return Device("adb", self.transport(), default_to_big_cores=True)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())

    def _file(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def _program(self, name: str, script: str) -> None:
        self._file(f"bin/{name}", f"#!/bin/sh\n{script}\n")
        (self.folder / "bin" / name).chmod(0o755)


@pytest.fixture
def phone(arm_runner: RunnerBuild, tmp_path: Path) -> Phone:
    del arm_runner  # only that it is there, and the emulator
    return Phone(tmp_path)


@pytest.fixture
def transport(phone: Phone) -> Iterator[AdbTransport]:
    opened = phone.transport()
    yield opened
    opened.remove()


def test_pte_gives_the_golden_codes_with_libraries_that_travelled(phone: Phone, bundle: Bundle) -> None:
    with phone.device() as device, open_device_session(bundle, "executorch", device) as session:
        result = check_parity(session, bundle.golden())
        (folder,) = phone.temporary.iterdir()
        travelled = {path.name for path in (folder / "runtime" / "system").iterdir()}
    assert result.codes_sha256 == bundle.manifest.golden_sha256
    assert {"ld-linux-aarch64.so.1", "libc.so.6", "libstdc++.so.6", "libgcc_s.so.1"} <= travelled
    assert phone.left() == []


def test_a_run_is_bound_to_the_big_cores_and_records_heat_and_battery(phone: Phone, pte: Path, sample: Path) -> None:
    with phone.device() as device:
        run = device.run("executorch", pte, np.load(sample), iterations=2)
        unbound = device.run("executorch", pte, np.load(sample), affinity=())
    assert run.affinity == run.facts.big_cores == (BIG_CORE,)
    assert unbound.affinity == ()
    facts = run.facts
    assert (facts.soc, facts.temperature_c, facts.thermal_status) == ("Stand-in SoC", 41.5, 2)
    assert (facts.battery_percent, facts.battery_status, facts.frequency_mhz) == (77, "Discharging", 2900)
    assert [core.name for core in facts.cores] == ["Cortex-A76"]
    assert facts.features == ("asimd", "asimddp")
    assert len(run.query_ns) == 2


def test_onnx_on_a_phone_is_refused_with_what_to_do(phone: Phone, sample: Path) -> None:
    with (
        phone.device() as device,
        pytest.raises(DeviceError, match=r"no Python, which onnxruntime needs: run the \.pte"),
    ):
        device.run("onnxruntime", sample, np.load(sample))


@pytest.mark.parametrize("name", ["a b", "$(touch pwned)", "'; touch pwned; '", '"', "-rf", "*"])
def test_hostile_names_are_only_names(transport: AdbTransport, phone: Phone, tmp_path: Path, name: str) -> None:
    (source := tmp_path / name).write_text("content")
    transport.put(source, name)
    assert transport.run(["cat", "--", name], timeout_s=10).stdout == "content"
    assert transport.run(["printf", "%s", name], timeout_s=10).stdout == name
    transport.get(name, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    assert not list(phone.folder.rglob("pwned"))


def test_which_phone_is_asked_for(phone: Phone) -> None:
    phone.attach("ONE", "TWO")
    with pytest.raises(DeviceError, match=r"(?s)more than one.*Name one as `adb:SERIAL`"):
        phone.transport().run(["true"], timeout_s=10)
    with pytest.raises(DeviceError, match=r"(?s)cannot work on the phone THREE: .*`adb devices` lists"):
        phone.transport("THREE").run(["true"], timeout_s=10)
    two = phone.transport("TWO")
    assert two.run(["echo", "here"], timeout_s=10).stdout == "here\n"
    two.remove()
    phone.attach()
    with pytest.raises(DeviceError, match=r"(?s)no devices.*USB debugging on"):
        phone.transport().run(["true"], timeout_s=10)
    assert phone.left() == []


def test_a_missing_adb_is_named() -> None:
    with pytest.raises(DeviceError, match="`no-such-adb` is not installed"):
        AdbTransport(program="no-such-adb").run(["true"], timeout_s=10)


def test_a_pulled_cable_is_an_error_and_leaves_nothing(phone: Phone, tmp_path: Path) -> None:
    transport = phone.transport()
    (source := tmp_path / "x").write_text("content")
    transport.put(source, "x")
    assert len(phone.left()) == 1
    # When the cable is pulled, the phone's end of a shell sees its input close.
    assert transport.holder is not None
    assert transport.holder.stdin is not None
    transport.holder.stdin.close()
    transport.holder.wait(10)
    phone.attach()
    with pytest.raises(DeviceError, match="the connection to the phone was lost"):
        transport.put(source, "y")
    transport.remove()
    assert phone.left() == []


def test_the_stand_in_answers_where_adb_would(phone: Phone) -> None:
    """The real `adb`, where it is installed, refuses with the words that this package looks for."""
    adb = shutil.which("adb")
    if adb is None or os.environ.get("ANDROID_SERIAL"):
        pytest.skip("`adb` is not installed, or a phone is attached")
    with pytest.raises(DeviceError, match=r"(?s)not found.*`adb devices` lists"):
        AdbTransport(serial="no-such-phone", program=adb).run(["true"], timeout_s=30)
