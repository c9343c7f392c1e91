"""What can go wrong between this machine and a device."""

from __future__ import annotations

from litehrnet_stage2.reference.errors import Stage2Error


class DeviceError(Stage2Error):
    """A device cannot be reached, or did not do what it was told; the message says what to do."""


class MissingToolError(DeviceError):
    """A program or package that this machine needs is not installed; the message names the package."""


class RunnerError(DeviceError):
    """The runner on the device refused or failed; `kind` is the runner's word for it.

    `flags`, `model`, `input`, `execution` or `crash`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
