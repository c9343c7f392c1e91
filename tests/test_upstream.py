"""The private names of other libraries are where the modules of `upstream` say; what fails here names the one gone."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("reference", "converters", "runtime", "apps")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("upstream/*.py") if path.stem != "__init__")


def private_names(path: Path) -> list[tuple[str, str]]:
    """Module and name of each private import, and object and attribute of each private access, in a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("litehrnet_stage2"):
            private = any(part.startswith("_") for part in str(node.module).split("."))
            found += [(str(node.module), a.name) for a in node.names if private or a.name.startswith("_")]
        elif isinstance(node, ast.Import):
            found += [(a.name, "") for a in node.names if any(part.startswith("_") for part in a.name.split("."))]
    return [(module, name) for module, name in found if module != "__future__"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_private_name_is_there(path: Path) -> None:
    for module, name in private_names(path):
        there = importlib.import_module(module)
        assert not name or hasattr(there, name), f"{path} uses {module}.{name}, which this version does not have"
    room, _, stem = path.relative_to(ROOT).with_suffix("").as_posix().partition("/")
    importlib.import_module(f"litehrnet_stage2.{room}.{stem.replace('/', '.')}")
