"""Core ML itself as a session: the Neural Engine's package on a Mac's CPU and Neural Engine."""

from __future__ import annotations

from litehrnet_stage2.runtime.bundle import Bundle
from litehrnet_stage2.runtime.coreml.mac_session import MacSession, open_on_mac


def open_session(bundle: Bundle, threads: int) -> MacSession:
    """Open `stage2-ane.mlpackage`: another function than the integer one, judged by `check_fidelity`."""
    return open_on_mac(bundle, runtime="coreml-ane", target="coreml-ane", unit="cpu+ne", threads=threads)
