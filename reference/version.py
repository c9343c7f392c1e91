"""The version of this package, as it is installed."""

from __future__ import annotations

from importlib import metadata

__version__ = metadata.version("litehrnet-stage2")
