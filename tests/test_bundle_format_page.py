"""What docs/bundle-format.md says is so: it names every key of the schema, and its example reads a bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8")
BUNDLE = ROOT / "tests" / "bundles" / "schema-2.1"


def keys(schema: Any) -> Iterator[str]:
    """Every key that an object of the schema may have."""
    if isinstance(schema, dict):
        properties = schema.get("properties", {})
        yield from properties
        for part in (*properties.values(), *(schema[word] for word in schema if word != "properties")):
            yield from keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys(part)


def first_cells() -> set[str]:
    """What the page's tables have between backquotes."""
    return {name for row in PAGE.splitlines() if row.startswith("|") for name in re.findall(r"`([^`]+)`", row)}


def test_the_page_names_every_key_of_the_schema() -> None:
    schema = json.loads((ROOT / "reference" / "contract" / "manifest.schema.json").read_text(encoding="utf-8"))
    found = set(keys(schema))
    assert {"schema_version", "zero_point", "partitions", "size_bytes", "layout"} <= found
    assert found <= first_cells()


def example() -> Any:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return compile(code, "docs/bundle-format.md", "exec")


def test_the_example_reads_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    exec(example(), {})
    assert capsys.readouterr().out == "the golden codes are whole\n"


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz"])
def test_the_example_refuses_a_changed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    path.write_bytes(path.read_bytes() + b" ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"{re.escape(name)} is not what"):
        exec(example(), {})
