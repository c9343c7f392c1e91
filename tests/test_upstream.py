"""The private names of other libraries are where the modules of `upstream` say; what fails here names the one gone."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("reference", "converters", "runtime", "apps")
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("upstream/*.py"))
    if path.stem != "__init__"
}


def declared(module: str) -> list[tuple[str, str]]:
    """The holder, a module or a class, and the name, of each private name that a module says it uses."""
    private = importlib.import_module(f"litehrnet_stage2.{module}").PRIVATE
    return [(holder, name) for holder, names in private.items() for name in names]


def found(holder: str) -> Any:
    """The module or class of a dotted name."""
    try:
        return importlib.import_module(holder)
    except ModuleNotFoundError:
        module, _, name = holder.rpartition(".")
        return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("holder", "name"), [one for module in MODULES for one in declared(module)])
def test_a_private_name_is_there(holder: str, name: str) -> None:
    there = found(holder)
    if not hasattr(there, name) and isinstance(there, type):  # its objects may have it all the same
        assert name in there.__init__.__code__.co_names, f"objects of {holder} have no {name} in this version"
        return
    assert hasattr(there, name), f"{holder} has no {name} in this version"


def imported(path: Path) -> set[str]:
    """Every part of every name that a module imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return {part for name in names for part in name.split(".")}


def private(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("_") and not name.startswith("__")} - {"_typeshed"}


def test_no_private_name_is_imported_anywhere_else() -> None:
    others = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path not in MODULES.values()]
    assert not {str(path): names for path in others if (names := private(imported(path)))}


@pytest.mark.parametrize("module", MODULES)
def test_every_private_name_that_is_used_is_declared(module: str) -> None:
    nodes = ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
    used = imported(MODULES[module]) | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert private(used) <= {part for holder, name in declared(module) for part in (*holder.split("."), name)}
