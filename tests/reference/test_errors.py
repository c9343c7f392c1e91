"""Whether an error is the user's to mend is told by its type, everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import litehrnet_stage2
from litehrnet_stage2.reference.errors import LONGEST_MESSAGE, InputError, Stage2Error

STANDALONE = ("python_runner.py",)
"""Copied to a device, where nothing of this package is; they catch their own."""

INTERNAL = ("NoExchangeError", "RefusalError")
"""Never leave the module that raises them."""


BUILT_IN = ("Exception", "ValueError", "RuntimeError")


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every module, with the module's path."""
    root = Path(litehrnet_stage2.__path__[0])
    for room in ("reference", "converters", "runtime", "apps"):
        for path in sorted((root / room).rglob("*.py")):
            if path.name not in STANDALONE:
                for node in ast.walk(ast.parse(path.read_text())):
                    yield str(path.relative_to(root)), node


def test_no_module_raises_a_bare_value_error() -> None:
    """A caller's mistake is an `InputError`, which is one; a library's `ValueError` is a fault of the program."""
    bare = []
    for name, node in nodes():
        raised = node.exc if isinstance(node, ast.Raise) else None
        called = raised.func if isinstance(raised, ast.Call) else raised
        if isinstance(called, ast.Name) and called.id in BUILT_IN:
            bare.append(f"{name}:{called.lineno}")
    assert not bare


def test_every_error_of_this_package_has_the_one_base() -> None:
    other = []
    for name, node in nodes():
        if isinstance(node, ast.ClassDef) and node.name not in (*INTERNAL, "Stage2Error"):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if bases & set(BUILT_IN) and "Stage2Error" not in bases:
                other.append(f"{name}.{node.name}")
    assert not other


def test_an_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


def test_an_error_quotes_at_most_so_much_of_a_file_and_keeps_its_end() -> None:
    said = str(InputError(f"the field {'a' * 100_000} is unknown: convert again"))
    assert len(said) == LONGEST_MESSAGE
    assert said.startswith("the field aaa")
    assert said.endswith("aaa is unknown: convert again")


def test_an_error_that_quotes_a_file_does_nothing_to_a_terminal() -> None:
    assert str(Stage2Error("\x1b[2J\ud800 \u202ename\tis\nbad")) == "\\x1b[2J\\xd800 \\x202ename\tis\nbad"
