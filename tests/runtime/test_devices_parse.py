"""Device names and device facts: what is accepted, what is read, what a wrong name is told."""

from __future__ import annotations

import subprocess

import pytest

from litehrnet_stage2.runtime.devices import Device, EmulatedDevice, check_devices, local_device, parse_device
from litehrnet_stage2.runtime.devices.facts import FACTS_SCRIPT, parse_facts
from litehrnet_stage2.runtime.devices.processors import core_name, x86_name
from litehrnet_stage2.runtime.devices.toolchain import host_arch
from litehrnet_stage2.runtime.devices.transport import LocalTransport, checked_name

RASPBERRY_PI_5 = """\
@machine\taarch64
@kernel\tLinux 6.6.31 #1 SMP PREEMPT
@soc\tRaspberry Pi 5 Model B Rev 1.0
@load\t0.42 0.20 0.11 1/200 1234
@midr\t0 0x00000000414fd0b1
@current\t0 1500000
@highest\t0 2400000
@governor\tondemand
@midr\t1 0x00000000414fd0b1
@current\t1 2400000
@highest\t1 2400000
@governor\tondemand
@thermal\tcpu-thermal 51350
@cpuinfo\tprocessor\t: 0
@cpuinfo\tFeatures\t: fp asimd evtstrm aes fphp asimdhp asimdrdm lrcpc dcpop asimddp
"""

PHONE = """\
@machine\taarch64
@kernel\tLinux 5.15.123-android14
@soc\tTensor G3
@current\t0 574000
@highest\t0 1704000
@current\t4 910000
@highest\t4 2367000
@current\t8 2914000
@highest\t8 2914000
@governor\tsched_pixel
@thermal\tbattery 30000
@thermal\tBIG 43000
@thermal\tLITTLE 41000
@thermal\tTPU 0
@battery\t83 Discharging
@status\t1
@cpuinfo\tprocessor\t: 0
@cpuinfo\tFeatures\t: fp asimd asimddp i8mm sve
@cpuinfo\tCPU implementer\t: 0x41
@cpuinfo\tCPU variant\t: 0x1
@cpuinfo\tCPU part\t: 0xd46
@cpuinfo\tCPU revision\t: 1
@cpuinfo\tprocessor\t: 8
@cpuinfo\tCPU implementer\t: 0x41
@cpuinfo\tCPU variant\t: 0x1
@cpuinfo\tCPU part\t: 0xd4e
@cpuinfo\tCPU revision\t: 1
"""


@pytest.mark.parametrize(
    "name",
    [
        "local",
        "emulated:cortex-a72",
        "emulated:i8mm",
        "ssh:board",
        "ssh:pi@board",
        "ssh:pi@192.168.0.7:2222",
        "ssh:pi@[fe80::1%eth0]:22",
        "adb",
        "adb:R5CT-1234",
        "adb:192.168.0.9:5555",
    ],
)
def test_every_accepted_form_is_a_device_of_that_name(name: str) -> None:
    device = parse_device(name)
    assert isinstance(device, Device)
    assert device.name == name
    assert device.emulated == name.startswith("emulated:") == isinstance(device, EmulatedDevice)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "unknown device '': the devices are local, emulated:cortex-a72|"),
        ("phone", r"unknown device 'phone'.*ssh:\[USER@\]HOST\[:PORT\], adb\[:SERIAL\]"),
        ("local:1", "unknown device 'local:1'"),
        ("adb:", "unknown device 'adb:'"),
        ("emulated", "unknown emulated CPU ''"),
        ("emulated:max", "unknown emulated CPU 'max': the CPUs are cortex-a72, cortex-a76, neoverse-n1, i8mm"),
        ("ssh:", "names no ssh host"),
        ("ssh:pi@", "names no ssh host"),
        ("ssh:-oProxyCommand=touch x", "names no ssh host"),
        ("ssh:-l@board", "names no ssh host"),
        ("ssh:pi@-oProxyCommand=x", "names no ssh host"),
        ("ssh:pi@board:99999", "names no ssh host"),
        ("ssh:pi@board:ssh", "names no ssh host"),
    ],
)
def test_a_wrong_name_is_told_what_is_accepted(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_device(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_outside_of_the_work_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not name a file in the work folder"):
        checked_name(name)


def test_facts_of_a_raspberry_pi() -> None:
    facts = parse_facts(RASPBERRY_PI_5, device="ssh:pi@board", arch="aarch64")
    assert facts.soc == "Raspberry Pi 5 Model B Rev 1.0"
    assert [(kind.name, kind.part, kind.cores) for kind in facts.cores] == [("Cortex-A76", "0x414fd0b1", (0, 1))]
    assert facts.features == ("asimd", "asimddp")
    assert (facts.frequency_mhz, facts.governor, facts.temperature_c) == (2400, "ondemand", 51.35)
    assert (facts.load_1min, facts.battery_percent, facts.has_sme) == (0.42, None, False)


def test_facts_of_a_phone_name_its_big_core_heat_and_battery() -> None:
    facts = parse_facts(PHONE, device="adb", arch="aarch64")
    assert [(kind.name, kind.cores) for kind in facts.cores] == [("Cortex-A510", (0,)), ("Cortex-X3", (8,))]
    assert facts.big_cores == (8,)
    assert facts.features == ("asimd", "asimddp", "i8mm", "sve")
    assert (facts.temperature_c, facts.thermal_status) == (43, 1)
    assert (facts.battery_percent, facts.battery_status) == (83, "Discharging")


def test_facts_of_a_silent_device_are_empty_not_wrong() -> None:
    facts = parse_facts("@midr\t0\n@current\t0 \n@thermal\t \nnoise\n", device="ssh:x", arch="aarch64")
    assert (facts.cores, facts.features, facts.big_cores) == ((), (), ())
    assert (facts.frequency_mhz, facts.temperature_c, facts.load_1min, facts.soc) == (None, None, None, None)


@pytest.mark.parametrize(
    ("vendor", "family", "model", "generation"),
    [
        ("AuthenticAMD", 23, 49, "Zen 2"),
        ("AuthenticAMD", 25, 1, "Zen 3"),
        ("AuthenticAMD", 25, 17, "Zen 4"),
        ("AuthenticAMD", 26, 2, "Zen 5"),
        ("GenuineIntel", 6, 106, "Ice Lake"),
        ("GenuineIntel", 6, 143, "Sapphire Rapids"),
        ("GenuineIntel", 6, 7, "family 6, model 7"),
        ("AuthenticAMD", 99, 7, "family 99, model 7"),
    ],
)
def test_an_x86_processor_is_named_with_its_generation(vendor: str, family: int, model: int, generation: str) -> None:
    said = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t: {model}\nmodel name\t: A server"
    text = "\n".join(f"@cpuinfo\t{line}" for line in said.splitlines())
    (kind,) = parse_facts(text, device="local", arch="x86_64").cores
    assert (kind.name, kind.part) == (f"A server ({generation})", f"family {family} model {model}")
    assert x86_name("A server", vendor, family, model) == kind.name


def test_core_names_come_from_part_numbers() -> None:
    assert core_name(0x414FD0B1) == "Cortex-A76"
    assert core_name(0x413FD0C1) == "Neoverse-N1"
    assert core_name(0x611F0220) == "Apple part 0x022"
    assert core_name(0x990F1230) == "implementer 0x99 part 0x123"


def test_facts_of_this_machine() -> None:
    with local_device() as device:
        facts = device.facts()
    assert facts.arch == host_arch()
    assert facts.kernel.startswith("Linux")
    assert facts.cores
    assert facts.load_1min is not None
    assert not facts.emulated


def test_the_facts_script_prints_nothing_to_standard_error() -> None:
    done = subprocess.run(["sh", "-c", FACTS_SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_doctor_names_every_kind_and_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = check_devices()
    assert [check.kind for check in checks] == ["local", "emulated", "ssh", "adb"]
    assert all(not check.ready and "apt-get install" in check.message for check in checks)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("Version 29.0.6-debian", "29.0.6, by cable; pairing without one needs 30 or later"),
        ("Version 30.0.0-6374843", "30.0.0, by cable or paired"),
        ("Version 35.0.2-12147458", "35.0.2, by cable or paired"),
        ("nothing", ", of unknown version"),
    ],
)
def test_doctor_says_when_adb_is_too_old_to_pair(
    monkeypatch: pytest.MonkeyPatch, tmp_path, version: str, said: str
) -> None:
    adb = tmp_path / "adb"
    adb.write_text(
        f"#!/bin/sh\n[ \"$*\" = version ] && echo 'Android Debug Bridge version 1.0.41' && echo '{version}'\n"
    )
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (check,) = [check for check in check_devices() if check.kind == "adb"]
    assert check.ready
    assert check.message.startswith(str(adb))
    assert said in check.message


def test_local_files_are_linked_and_removed(tmp_path) -> None:
    (tmp_path / "x").write_text("content")
    transport = LocalTransport()
    transport.put(tmp_path / "x", "name with 'quotes' and $(touch y)")
    done = transport.run(["cat", "name with 'quotes' and $(touch y)"], timeout_s=10)
    assert (done.status, done.stdout) == (0, "content")
    folder = transport.folder
    transport.remove()
    transport.remove()
    assert not folder.exists()
    assert (tmp_path / "x").read_text() == "content"
