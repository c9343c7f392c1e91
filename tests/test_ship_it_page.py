"""What docs/ship-it.md says of the self-checks is so: all are linked, and marked if nothing here runs them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SNIPPETS = sorted((ROOT / "docs" / "self-check").iterdir())


def test_every_self_check_is_linked_and_says_itself_if_it_was_not_compiled() -> None:
    rows = (ROOT / "docs" / "ship-it.md").read_text(encoding="utf-8").splitlines()
    runs = (ROOT / "tests" / "apps" / "test_self_check.py").read_text(encoding="utf-8")
    assert {path.suffix for path in SNIPPETS} == {".cpp", ".kt", ".mjs", ".swift"}
    for path in SNIPPETS:
        (row,) = [row for row in rows if f"(self-check/{path.name})" in row]
        compiled = f'"{path.name}"' in runs
        assert row.endswith("| no, not compiled |") == (not compiled)
        assert path.read_text(encoding="utf-8").startswith("// Not compiled here") == (not compiled)


def test_a_self_check_reads_from_the_manifest_what_differs_from_bundle_to_bundle() -> None:
    for path in SNIPPETS:
        code = path.read_text(encoding="utf-8")
        words = ("manifest.json", "golden_sha256", "golden/input-", "scale", "zero_point", "shape", "border")
        assert [word for word in words if word not in code] == []
