"""Change the arithmetic, one operator at a time, and see that its tests notice.

    python tests/mutation.py [MODULE...]     as `mean` or `settle`; of some alone no page is written

Each mutant is a fork of this process, which has numpy and pytest loaded and no torch: it imports the package with one
node of one module changed, and runs the tests of `reference/arithmetic`. Writes docs/mutation.md; the exit status is 1
if a mutant lives that `EQUAL` does not explain. mutmut and cosmic-ray would start torch anew for each mutant.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import hypothesis.strategies  # noqa: F401 (so that no fork has to load it)
import numpy as np  # noqa: F401 (the same)
import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "mutation.md"
MODULES = ("quantization", "runtime_rules", "golden", "settle")
TESTS = "tests/reference/arithmetic"
MOST_S = 60  # a run without a change takes 4

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.And: ast.Or, ast.Or: ast.And},
}
NAMES = {
    **{"rint": "floor", "floor": "ceil", "trunc": "floor", "maximum": "minimum", "minimum": "maximum"},
    **{"max": "min", "min": "max", "float32": "float64", "float64": "float32"},
}


def _same(module: str, source: str, changes: Sequence[str], reason: str) -> dict[str, str]:
    return {f"{module}: `{source}`, {change}": reason for change in changes}


EQUAL: dict[str, str] = {
    **_same(
        "reference.runtime_rules",
        "return saturate(((total - (total < 0) + (1 << (shift - 1))) >> shift) + out.zero_point)",
        ("< to <=",),
        "a sum of 0 is 0 either way",
    ),
    **_same(
        "reference.operators.conv",
        "x = np.pad(codes.astype(np.float64) - zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))",
        ("float64 to float32",),
        "float32 holds a code, and the weights make the product float64",
    ),
    **_same(
        "reference.operators.conv",
        "weight = self.weight.astype(np.float64).reshape(groups, channels // groups, per_group, -1)",
        ("float64 to float32",),
        "float32 holds a code, and the map makes the product float64",
    ),
    **_same(
        "reference.operators.resize",
        "if not 255 * step < 1 / self.cells:",
        ("< to <=", "/ to *", "* to /"),
        "an assertion on constants, which still holds",
    ),
    **_same(
        "reference.operators.silu",
        "return silu_table(reads[0], out)[codes[0].astype(np.int16) - QMIN]",
        ("- to +",),
        "an index below zero counts from the end, which is 256 further",
    ),
    **_same(
        "reference.operators.table",
        "return self.entries(reads[0], out)[codes[0].astype(np.int16) - QMIN]",
        ("- to +",),
        "an index below zero counts from the end, which is 256 further",
    ),
    **_same(
        "reference.operators.silu",
        "x = np.float64(inp.scale) * (np.arange(QMIN, QMAX + 1) - inp.zero_point)",
        ("float64 to float32",),
        "integers of 64 bits make the product float64",
    ),
    **_same(
        "reference.operators.silu",
        "products = (np.arange(QMIN, QMAX + 1) - inp.zero_point) * sigmoid * np.float64(multiplier)",
        ("float64 to float32",),
        "the sigmoids make the product float64",
    ),
    **_same(
        "reference.operators.table",
        "x = np.float64(read.scale) * (np.arange(QMIN, QMAX + 1) - read.zero_point)",
        ("float64 to float32",),
        "integers of 64 bits make the product float64",
    ),
    **_same(
        "reference.operators.table",
        "return FUNCTIONS[self.function](x) / np.float64(out.scale)",
        ("float64 to float32",),
        "the values make the quotient float64",
    ),
    **_same("reference.operators.table", "Reals = NDArray[np.float64]", ("float64 to float32",), "a type for readers"),
    **_same(
        "reference.operators.table",
        "inside = steps > QMIN - out.zero_point - 0.75",
        ("> to >=", "0.75 to 1.125"),
        "there is no tie between the two bounds",
    ),
}
"""Mutants that compute the same, and why: `module: source line, change`."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of one node of a module."""

    module: str
    line: int
    source: str
    change: str
    tree: ast.Module

    @property
    def key(self) -> str:
        return f"{self.module}: `{self.source}`, {self.change}"


def mutants(path: Path) -> Iterator[Mutant]:
    """Every change of a module's arithmetic."""
    source = path.read_text(encoding="utf-8")
    lines, tree = source.splitlines(), ast.parse(source)
    for index, node in enumerate(_arithmetic(tree)):
        for number, (change, _) in enumerate(_changes(node)):
            changed = copy.deepcopy(tree)
            target = list(_arithmetic(changed))[index]
            _changes(target)[number][1]()
            line = node.lineno  # type: ignore[attr-defined]
            yield Mutant(
                module=path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."),
                line=line,
                source=lines[line - 1].strip(),
                change=change,
                tree=ast.fix_missing_locations(changed),
            )


def _arithmetic(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that compute: no annotation, decorator, sentence or import."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in skipped or isinstance(node, (ast.JoinedStr, ast.Raise)):
            skipped.update(id(child) for child in ast.walk(node))
            continue
        for field in ("annotation", "returns", "decorator_list"):
            part = getattr(node, field, None) or []
            for part_node in part if isinstance(part, list) else [part]:
                skipped.update(id(child) for child in ast.walk(part_node))
        if hasattr(node, "lineno"):
            yield node


def _changes(node: ast.AST) -> list[tuple[str, object]]:
    """What to change a node to: a description, and a function that does it in place."""
    found = []

    def change(what: str, field: str, value: object) -> None:
        found.append((what, lambda: setattr(node, field, value)))

    match node:
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            other = OPERATORS[type(op)]
            change(f"{_sign(op)} to {_sign(other())}", "op", other())
        case ast.Compare(ops=[first, *rest]) if type(first) in OPERATORS:
            other = OPERATORS[type(first)]
            change(f"{_sign(first)} to {_sign(other())}", "ops", [other(), *rest])
        case ast.UnaryOp(op=ast.USub()):
            change("- to +", "op", ast.UAdd())
        case ast.Constant(value=float(value)):
            change(f"{value} to {value * 1.5}", "value", value * 1.5)
        case ast.Attribute(attr=name) if name in NAMES:
            change(f"{name} to {NAMES[name]}", "attr", NAMES[name])
        case ast.Name(id=("max" | "min") as name):
            change(f"{name} to {NAMES[name]}", "id", NAMES[name])
    return found


def _sign(operator: ast.AST) -> str:
    signs = {
        **{"Add": "+", "Sub": "-", "Mult": "*", "Div": "/", "FloorDiv": "//", "Mod": "%", "Pow": "**"},
        **{"LShift": "<<", "RShift": ">>", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">=", "Eq": "==", "NotEq": "!="},
        **{"And": "and", "Or": "or"},
    }
    return signs[type(operator).__name__]


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the package one changed module."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> object:
        if name != f"litehrnet_stage2.{self._mutant.module}":
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._mutant.tree, self._mutant.module, "exec"), module.__dict__)


def quick_ones_first() -> list[Path]:
    """The files of tests; the additions' try all pairs of codes one by one."""
    return sorted((ROOT / TESTS).glob("test_*.py"), key=lambda path: path.stem == "test_addition_rules")


def notices(mutant: Mutant | None) -> bool:
    """Whether a test fails, or does not end, with this change."""
    child = os.fork()
    if not child:
        status = 3
        with contextlib.suppress(BaseException):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            if mutant:
                sys.meta_path.insert(0, _Importer(mutant))
            quiet = ["-x", "-q", "--noconftest", "-p", "tests.tiers", "-p", "no:cacheprovider"]
            status = int(pytest.main([*quiet, "-W", "ignore", *map(str, quick_ones_first())]))
        os._exit(status)
    end = time.monotonic() + MOST_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main(only: Sequence[str]) -> int:
    """Try every mutant and write the page; or those of some modules."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    importlib.import_module("tests.tiers")  # has a profile of its own
    settings.register_profile("mutation", settings(), phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutation")  # that a test fails is enough: no smaller example is looked for
    files = [ROOT / "reference" / f"{name}.py" for name in MODULES]
    files += sorted((ROOT / "reference" / "operators").glob("*.py"))
    if only:
        files = [path for path in files if path.stem in only]
    every = [mutant for path in files for mutant in mutants(path)]
    if notices(None):
        print(f"the tests of {TESTS} fail without any change: run them first", file=sys.stderr)
        return 2
    noticed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, killed in zip(every, pool.map(notices, every), strict=True):
            noticed.append(killed)
            print(f"{len(noticed)} of {len(every)}{'' if killed else f', alive: {mutant.key}'}", file=sys.stderr)
    alive = [mutant for mutant, killed in zip(every, noticed, strict=True) if not killed]
    if not only:
        PAGE.write_text(_page(every, alive), encoding="utf-8")
    print(f"{len(every)} mutants, {len(every) - len(alive)} noticed, {len(alive)} alive")
    unexplained = [mutant for mutant in alive if mutant.key not in EQUAL]
    for mutant in unexplained:
        print(f"{mutant.module}:{mutant.line}: {mutant.change}: {mutant.source}")
    return 1 if unexplained else 0


def _page(every: list[Mutant], alive: list[Mutant]) -> str:
    rows = []
    for module in dict.fromkeys(mutant.module for mutant in every):
        count, left = (sum(mutant.module == module for mutant in some) for some in (every, alive))
        rows.append(f"| `{module}` | {count} | {count - left} | {left} |")
    listed = [
        f"- `{mutant.module}`, line {mutant.line}, `{mutant.source}`, {mutant.change}: "
        f"{EQUAL.get(mutant.key, 'no test notices it yet')}"
        for mutant in alive
    ]
    return "\n".join(
        [
            "# Mutation",
            "",
            "Every operator, comparison, rounding and precision of the integer arithmetic is changed, one at a",
            f"time, and the tests of `{TESTS}` have to notice. `make mutation` does it and writes this page.",
            "",
            "| module | changes | noticed | not |",
            "|---|---:|---:|---:|",
            *rows,
            f"| all | {len(every)} | {len(every) - len(alive)} | {len(alive)} |",
            "",
            "## Changes that no test notices",
            "",
            *(listed or ["None."]),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
