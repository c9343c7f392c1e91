"""Open an artifact, check its output, time it. Works with no torch installed; names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litehrnet_stage2.reference.lazy import importer

if TYPE_CHECKING:
    from litehrnet_stage2.runtime.bundle import Bundle, Golden
    from litehrnet_stage2.runtime.fidelity import OWN_FUNCTION, FidelityResult, check_fidelity
    from litehrnet_stage2.runtime.parity import ParityResult, check_parity, expected
    from litehrnet_stage2.runtime.session import (
        OutputError,
        RuntimeUnavailableError,
        Session,
        SessionInfo,
        open_session,
    )

_HOME = {
    "Bundle": "bundle",
    "FidelityResult": "fidelity",
    "Golden": "bundle",
    "OWN_FUNCTION": "fidelity",
    "OutputError": "session",
    "ParityResult": "parity",
    "RuntimeUnavailableError": "session",
    "Session": "session",
    "SessionInfo": "session",
    "check_fidelity": "fidelity",
    "check_parity": "parity",
    "expected": "parity",
    "open_session": "session",
}
__all__ = [
    "OWN_FUNCTION",
    "Bundle",
    "FidelityResult",
    "Golden",
    "OutputError",
    "ParityResult",
    "RuntimeUnavailableError",
    "Session",
    "SessionInfo",
    "check_fidelity",
    "check_parity",
    "expected",
    "open_session",
]

__getattr__ = importer(__name__, _HOME)
