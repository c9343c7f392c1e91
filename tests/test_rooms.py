"""The rooms: what may import what, and that every module and every public class has a name of its own."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "reference": {"reference"},
    "converters": {"reference", "converters"},
    "runtime": {"reference", "runtime"},
    "apps": {"reference", "converters", "runtime", "apps"},
}
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): ast.parse(path.read_text(encoding="utf-8"))
    for room in MAY_IMPORT
    for path in sorted((ROOT / room).rglob("*.py"))
}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules of this package that a module imports, anywhere in it, without the package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.partition(".")[2] for name in found if name.startswith("litehrnet_stage2."))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in MODULES.items()
        if module.split(".")[0] == room
        for name in imports(tree)
        if name.split(".")[0] not in MAY_IMPORT[room]
    ]
    assert not wrong


def test_no_modules_import_each_other() -> None:
    left = {module: set(needed(tree)) - {module} for module, tree in MODULES.items()}
    while leaves := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in leaves:
            del left[module]
    assert not left, f"these import each other: {', '.join(left)}"


def needed(tree: ast.Module) -> Iterator[str]:
    """The modules that a module takes as it is imported, which its functions may not yet."""
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for name in imports(ast.Module(body=at_once, type_ignores=[])):
        holder = name.rpartition(".")[0]
        yield next(one for one in (name, holder, f"{holder}.__init__", f"{name}.__init__") if one in MODULES)


def test_every_module_has_a_name_of_its_own() -> None:
    by_name = defaultdict(list)
    for module in MODULES:
        by_name[module.rpartition(".")[2]].append(module)
    del by_name["__init__"]
    assert not {name: modules for name, modules in by_name.items() if len(modules) > 1}


def test_every_public_class_has_a_name_of_its_own() -> None:
    by_name = defaultdict(list)
    for module, tree in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                by_name[node.name].append(module)
    assert not {name: modules for name, modules in by_name.items() if len(modules) > 1}


def test_no_module_has_the_name_of_a_library() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    ours = {Requirement(text).name.lower().replace("_", "-") for text in asked} - {project["name"]}
    theirs = {
        name
        for name, distributions in packages_distributions().items()
        if ours & {distribution.lower().replace("_", "-") for distribution in distributions}
    }
    assert {"numpy", "onnxruntime", "torch"} <= theirs
    names = {module.rpartition(".")[2] for module in MODULES}
    assert not names & (theirs | sys.stdlib_module_names)
