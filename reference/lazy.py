"""Imports the names that a package offers on first use, so that a device with numpy alone can import it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def importer(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of `package`: `homes` has the module, inside of it, of each name it offers.

    A name that is another one there is given as `module:name`.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, other = homes[name].partition(":")
        return getattr(importlib.import_module(f"{package}.{module}"), other or name)

    return find
