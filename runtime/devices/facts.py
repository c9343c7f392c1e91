"""What a device says about itself, so that a number can be believed or doubted later."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from litehrnet_stage2.runtime.devices.processors import core_name, x86_name

# Read with `sh`, as one script, because each command costs a round trip to a board or phone.
FACTS_SCRIPT = """
say() { printf '@%s\\t%s\\n' "$1" "$2"; }
first() { for f in "$@"; do [ -r "$f" ] && tr '\\000' ' ' <"$f" | head -n 1 && return; done; }
say machine "$(uname -m)"
say kernel "$(uname -srv)"
say soc "$(getprop ro.soc.model 2>/dev/null)"
say soc "$(first /proc/device-tree/model /sys/devices/soc0/machine /sys/devices/virtual/dmi/id/product_name)"
say load "$(first /proc/loadavg)"
for c in /sys/devices/system/cpu/cpu[0-9]*; do
    say midr "${c##*cpu} $(first $c/regs/identification/midr_el1)"
    say current "${c##*cpu} $(first $c/cpufreq/scaling_cur_freq)"
    say highest "${c##*cpu} $(first $c/cpufreq/cpuinfo_max_freq)"
    say governor "$(first $c/cpufreq/scaling_governor)"
done
for z in /sys/class/thermal/thermal_zone*; do say thermal "$(first $z/type) $(first $z/temp)"; done
for s in /sys/class/power_supply/*; do say battery "$(first $s/capacity) $(first $s/status)"; done
say status "$(dumpsys thermalservice 2>/dev/null | sed -n 's/.*Thermal Status: *//p' | head -n 1)"
[ -r /proc/cpuinfo ] && while read -r l; do say cpuinfo "$l"; done </proc/cpuinfo
[ "$(uname -s)" = Darwin ] || exit 0
say soc "$(sysctl -n machdep.cpu.brand_string)"
say load "$(sysctl -n vm.loadavg | tr -d '{}')"
for f in AdvSIMD:asimd DotProd:asimddp I8MM:i8mm SME:sme SME2:sme2; do
    [ "$(sysctl -n hw.optional.arm.FEAT_${f%:*} 2>/dev/null)" = 1 ] && say cpuinfo "Features: ${f#*:}"
done
exit 0
"""

_MOST_LINES = 100_000
_FEATURES = (
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
    "sve2",
    "sme",
    "sme2",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
)
_X86_FIELDS = ("vendor_id", "cpu family", "model", "model name")
_MIDR_SHIFTS = {"CPU implementer": 24, "CPU variant": 20, "CPU part": 4, "CPU revision": 0}


@dataclass(frozen=True, kw_only=True)
class CoreKind:
    """Cores of one part: `name` with the generation, `part` the numbers that it comes from."""

    name: str
    part: str
    cores: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What stands beside every result. A value that the device does not show is `None` or empty.

    Attributes:
        device: as the user named it.
        emulated: its times mean nothing.
        features: the instruction sets that decide which int8 kernel runs, by Linux's names.
        big_cores: those whose highest frequency is the highest of all; empty where it is not shown.
        frequency_mhz: the highest current frequency of any core.
        thermal_status: Android's, 0 (none) to 6 (shutdown).
    """

    device: str
    emulated: bool
    arch: str
    soc: str | None = None
    cores: tuple[CoreKind, ...] = ()
    features: tuple[str, ...] = ()
    big_cores: tuple[int, ...] = ()
    kernel: str = ""
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    thermal_status: int | None = None
    battery_percent: int | None = None
    battery_status: str | None = None
    load_1min: float | None = None

    @property
    def has_sme(self) -> bool:
        """Whether the runtimes may choose SME kernels, whose parity is a gate of its own."""
        return "sme" in self.features or "sme2" in self.features


def known_features(words: Collection[str]) -> tuple[str, ...]:
    """Those of `words` that decide which int8 kernel runs."""
    return tuple(feature for feature in _FEATURES if feature in words)


def parse_facts(text: str, *, device: str, arch: str) -> DeviceFacts:
    """Read what `FACTS_SCRIPT` printed; whatever is missing or unreadable is left out."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines()[:_MOST_LINES]:
        key, tab, value = line.partition("\t")
        if key.startswith("@") and tab and value.strip():
            said.setdefault(key[1:], []).append(value.strip())
    highest = _per_core(said.get("highest", []))
    current = _per_core(said.get("current", []))
    battery = next((line.split() for line in said.get("battery", []) if _whole(line.split()[0]) is not None), [])
    return DeviceFacts(
        device=device,
        emulated=False,
        arch=arch,
        soc=next(iter(said.get("soc", [])), None),
        cores=_cores(said),
        features=_features(said.get("cpuinfo", [])),
        big_cores=tuple(core for core, khz in sorted(highest.items()) if khz == max(highest.values())),
        kernel=" ".join(said.get("kernel", [])),
        governor=", ".join(sorted(set(said.get("governor", [])))) or None,
        frequency_mhz=max(current.values()) / 1000 if current else None,
        temperature_c=_hottest(said.get("thermal", [])),
        thermal_status=_first_int(said.get("status", [])),
        battery_percent=_first_int(battery),
        battery_status=" ".join(battery[1:]) or None,
        load_1min=_load(said.get("load", [])),
    )


def _per_core(lines: list[str]) -> dict[int, int]:
    pairs = [[_whole(word) for word in line.split()] for line in lines]
    return {p[0]: p[1] for p in pairs if len(p) == 2 and p[0] is not None and p[1] is not None}


def _first_int(words: list[str]) -> int | None:
    return next((number for word in words if (number := _whole(word)) is not None), None)


def _load(lines: list[str]) -> float | None:
    word = lines[0].split()[0] if lines else ""
    return float(word) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", word) else None


def _whole(word: str) -> int | None:
    """A whole number of at most twelve digits: a device may say anything."""
    return int(word) if re.fullmatch(r"[0-9]{1,12}", word) else None


def _hottest(lines: list[str]) -> float | None:
    """The hottest zone in degrees, of the processor where zones say so; a dead zone reads 0 millidegrees."""
    zones = [(line.lower(), re.search(r"(?<![0-9])(-?[0-9]{1,9})$", line)) for line in lines]
    read = [(name, int(m[1]) / 1000) for name, m in zones if m and 1000 <= int(m[1]) <= 150_000]
    of_cpu = [c for name, c in read if re.search(r"cpu|soc|x86_pkg|big|little", name)]
    return max(of_cpu or [c for _, c in read], default=None)


def _features(cpuinfo: list[str]) -> tuple[str, ...]:
    words: set[str] = set()
    for line in cpuinfo:
        key, _, value = line.partition(":")
        if key.strip() in ("Features", "flags"):
            words.update(value.split())
    return known_features(words)


def _cores(said: dict[str, list[str]]) -> tuple[CoreKind, ...]:
    midrs: dict[int, int] = {}
    for line in said.get("midr", []):
        core, _, register = line.partition(" ")
        number = _whole(core)
        if number is not None and re.fullmatch(r"0x[0-9a-fA-F]{1,16}", register.strip()):
            midrs[number] = int(register, 16)
    models: dict[int, dict[str, str]] = {}
    fields: dict[str, int] = {}
    processor = 0
    for line in said.get("cpuinfo", []):
        key, _, value = (part.strip() for part in line.partition(":"))
        number = _whole(value)
        if key == "processor" and number is not None:
            processor, fields = number, {}
        elif key in _X86_FIELDS:
            models.setdefault(processor, {})[key] = value
        elif key in _MIDR_SHIFTS and re.fullmatch(r"0x[0-9a-fA-F]{1,8}|0|[1-9][0-9]{0,8}", value):
            fields[key] = int(value, 0)
            if len(fields) == len(_MIDR_SHIFTS):
                midr = 0xF0000 | sum(number << _MIDR_SHIFTS[name] for name, number in fields.items())
                midrs.setdefault(processor, midr)
    kinds = {core: (core_name(midr), f"0x{midr:08x}") for core, midr in midrs.items()}
    kinds = kinds or {core: _x86(model) for core, model in models.items()}
    alike: dict[tuple[str, str], list[int]] = {}
    for index, kind in kinds.items():
        alike.setdefault(kind, []).append(index)
    return tuple(CoreKind(name=name, part=part, cores=tuple(sorted(cores))) for (name, part), cores in alike.items())


def _x86(said: dict[str, str]) -> tuple[str, str]:
    """Name and part of an x86 core, from its lines of `/proc/cpuinfo`."""
    name = said.get("model name", "unknown processor")
    family, model = _whole(said.get("cpu family", "")), _whole(said.get("model", ""))
    if family is None or model is None:
        return name, ""
    return x86_name(name, said.get("vendor_id", ""), family, model), f"family {family} model {model}"
