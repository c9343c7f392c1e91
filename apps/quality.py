"""Tells how good a bundle's int8 is: signal to noise of each output against the float network, a hint where low."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litehrnet_stage2.apps import console

if TYPE_CHECKING:
    from litehrnet_stage2.runtime import Bundle

LOW_DB = 15.0
"""Below it a hint is given: the trained weights that ship have 17 dB when they are calibrated, 20 when fine-tuned."""


def quality(bundle: Bundle | Path) -> list[str]:
    """Sentences for a person; none where the bundle does not hold what the float network gave.

    Raises:
        BundleError: the golden file is missing or changed.
    """
    from litehrnet_stage2.runtime import Bundle
    from litehrnet_stage2.runtime.fidelity import golden_sqnr_db

    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    found = golden_sqnr_db(opened.golden(), opened.manifest.outputs)
    if not found:
        return []
    said = ", ".join(f"{name} {value:.1f} dB" for name, value in found.items())
    lines = [f"int8 against the float network, signal to noise: {said}"]
    if min(found.values()) < LOW_DB:
        lines.append(
            f"That is low (below {LOW_DB:g} dB): check that the calibration features are what your network feeds to "
            "Stage2, take more of them, or fine-tune with `stage2 qat`"
        )
    return lines


def show(lines: list[str]) -> None:
    """Print them on standard output."""
    for line in lines:
        console.out.print(line, markup=False, highlight=False, soft_wrap=True)
