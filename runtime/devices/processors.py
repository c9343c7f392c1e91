"""The names of processors from the numbers they say of themselves: MIDR on Arm, family and model on x86."""

from __future__ import annotations

from collections.abc import Mapping

_IMPLEMENTERS = {
    0x41: "Arm",
    0x51: "Qualcomm",
    0x61: "Apple",
    0xC0: "Ampere",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
}
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4B: "Cortex-A78C",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
    0xD82: "Cortex-X4",
    0xD84: "Neoverse-V3",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}

_ZEN: Mapping[int, Mapping[str, tuple[tuple[int, int], ...]]] = {
    0x17: {"Zen": ((0x00, 0x2F), (0x50, 0x5F)), "Zen 2": ((0x30, 0x4F), (0x60, 0x7F), (0x90, 0x91), (0xA0, 0xAF))},
    0x19: {"Zen 3": ((0x00, 0x0F), (0x20, 0x5F)), "Zen 4": ((0x10, 0x1F), (0x60, 0xAF))},
    0x1A: {
        "Zen 5": ((0x00, 0x2F), (0x40, 0x4F), (0x60, 0x7F)),
        "Zen 6": ((0x50, 0x5F), (0x80, 0xAF), (0xC0, 0xCF)),
    },
}
"""AMD's generations: ranges of models by family."""

_INTEL = {
    "Haswell": (0x3C, 0x3F, 0x45, 0x46),
    "Broadwell": (0x3D, 0x47, 0x4F, 0x56),
    "Skylake": (0x4E, 0x5E),
    "Skylake, Cascade Lake or Cooper Lake": (0x55,),
    "Kaby Lake or Coffee Lake": (0x8E, 0x9E),
    "Comet Lake": (0xA5, 0xA6),
    "Ice Lake": (0x6A, 0x6C, 0x7D, 0x7E),
    "Tiger Lake": (0x8C, 0x8D),
    "Alder Lake": (0x97, 0x9A, 0xBE),
    "Raptor Lake": (0xB7, 0xBA, 0xBF),
    "Meteor Lake": (0xAA, 0xAC),
    "Arrow Lake": (0xC5, 0xC6, 0xB5),
    "Lunar Lake": (0xBD,),
    "Sapphire Rapids": (0x8F,),
    "Emerald Rapids": (0xCF,),
    "Granite Rapids": (0xAD, 0xAE),
    "Sierra Forest": (0xAF,),
}
"""Intel's generations: models of family 6."""


def core_name(midr: int) -> str:
    """The name of a core from its main ID register, e.g. `Cortex-A76` from `0x414fd0b1`."""
    implementer, part = midr >> 24 & 0xFF, midr >> 4 & 0xFFF
    if implementer == 0x41 and part in _ARM_PARTS:
        return _ARM_PARTS[part]
    return f"{_IMPLEMENTERS.get(implementer, f'implementer 0x{implementer:02x}')} part 0x{part:03x}"


def x86_name(name: str, vendor: str, family: int, model: int) -> str:
    """The kernel's name of an x86 processor with its generation, or with the numbers where that is not known.

    A virtual machine's name is often that of the product line alone, `AMD EPYC`.
    """
    generation = None
    if vendor == "AuthenticAMD":
        ranges = _ZEN.get(family, {})
        generation = next((zen for zen, spans in ranges.items() if any(a <= model <= b for a, b in spans)), None)
    elif vendor == "GenuineIntel" and family == 6:
        generation = next((lake for lake, models in _INTEL.items() if model in models), None)
    return f"{name} ({generation or f'family {family}, model {model}'})"
