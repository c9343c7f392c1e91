"""The rooms: what may import what, and that every module and every public class has a name of its own."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement

from tests.rooms import MAY_IMPORT, MODULES, ROOT, graph, imports, module_of


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
    left = {module: needed(tree) - {module} for module, tree in MODULES.items()}
    while leaves := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in leaves:
            del left[module]
    assert not left, f"these import each other: {', '.join(left)}"


def needed(tree: ast.Module) -> set[str]:
    """The modules that a module takes as it is imported, which its functions may not yet."""
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {found for name in imports(ast.Module(body=at_once, type_ignores=[])) if (found := module_of(name))}


def test_the_graph_in_the_documentation_is_the_true_one() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```text\n{graph()}\n```" in page, "python tests/rooms.py prints what belongs there"


def test_every_module_has_a_name_of_its_own() -> None:
    by_name = defaultdict(list)
    for module in MODULES:
        by_name[module.rpartition(".")[2]].append(module)
    del by_name["__init__"]
    assert not {name: modules for name, modules in by_name.items() if len(modules) > 1}


def test_every_public_class_and_type_has_a_name_of_its_own() -> None:
    by_name = defaultdict(list)
    for module, tree in MODULES.items():
        for name in types(tree):
            by_name[name].append(module)
    assert not {name: modules for name, modules in by_name.items() if len(modules) > 1}


def types(tree: ast.Module) -> Iterator[str]:
    """The public classes and type aliases of a module: what is written LikeThis."""
    for node in tree.body:
        match node:
            case (
                ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):
                    yield name


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


def test_every_path_in_the_architecture_page_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([a-z_]+/[a-z0-9_/]*(?:\.\w+)?)`", page)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_word_in_italics_is_in_the_glossary() -> None:
    page, glossary = (
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("architecture", "glossary")
    )
    words = set(re.findall(r"(?<!\*)\*([a-z]+)\*(?!\*)", page)) - {"italics"}
    assert {"golden", "lane"} <= words
    rows = {word for row in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE) for word in row.split(", ")}
    assert {word for word in words if not {word, word.removesuffix("s")} & rows} == set()
