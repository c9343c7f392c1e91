"""The import graph of the package, read from its source: `python tests/rooms.py` prints it for docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

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
    """The names of this package that a module imports, anywhere in it, without the package's own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.partition(".")[2] for name in found if name.startswith("litehrnet_stage2."))


def module_of(name: str) -> str | None:
    """The module that an imported name is, or is in."""
    holder = name.rpartition(".")[0]
    return next((one for one in (name, holder, f"{holder}.__init__", f"{name}.__init__") if one in MODULES), None)


def graph() -> str:
    """Each folder, and behind it the other folders that its modules import."""
    read: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        folder = module.rpartition(".")[0]
        others = {found.rpartition(".")[0] for name in imports(tree) if (found := module_of(name))}
        read.setdefault(folder, set()).update(others - {folder})
    width = max(map(len, read))
    order = sorted(read, key=lambda folder: (list(MAY_IMPORT).index(folder.split(".")[0]), folder))
    return "\n".join(f"{folder:{width}}  {', '.join(sorted(read[folder])) or '-'}" for folder in order)


if __name__ == "__main__":
    print(graph())
