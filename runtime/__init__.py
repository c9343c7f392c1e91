"""Open an artifact, check its output, time it. Works with no torch installed."""

from litehrnet_stage2.runtime.bundle import Bundle, Golden
from litehrnet_stage2.runtime.fidelity import OWN_FUNCTION, FidelityResult, check_fidelity
from litehrnet_stage2.runtime.parity import ParityResult, check_parity, expected
from litehrnet_stage2.runtime.session import (
    RUNTIMES,
    OutputError,
    RuntimeUnavailableError,
    Session,
    SessionInfo,
    open_session,
)

__all__ = [
    "OWN_FUNCTION",
    "RUNTIMES",
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
