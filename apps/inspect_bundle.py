"""`stage2 inspect`: what is in a bundle, for a person."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from litehrnet_stage2.apps import console, quality

if TYPE_CHECKING:
    from rich.table import Table

    from litehrnet_stage2.reference.contract.manifest import Manifest
    from litehrnet_stage2.reference.integer_function import IntegerFunction


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A folder that `stage2 convert` made.", metavar="DIR")],
    json: console.JsonFile = None,
    verbose: console.Verbose = False,
) -> None:
    """Show a bundle's coverage contract, quantisation table and proof.

    Example:

        stage2 inspect bundle
    """
    with console.working(verbose=verbose):
        from litehrnet_stage2.runtime import Bundle

        opened = Bundle.open(bundle)
        for file in opened.manifest.files:
            opened.read(file)  # what is shown below is of these bytes, or not at all
        function = opened.function()
        found = quality.quality(opened)
        console.write_json(opened.manifest, json)
    if str(json) == "-":
        return
    console.out.print(_coverage(opened.manifest))
    console.out.print(_quantization(function))
    _facts(opened.manifest)
    quality.show(found)


def _coverage(manifest: Manifest) -> Table:
    table = console.table(
        "artifact", "fed with", "delegates", "in int8", "in float", "at the border", title="Coverage contract"
    )
    for name, coverage in manifest.coverage.items():
        groups = (coverage.int8, coverage.floating, coverage.boundary)
        listed = ("\n".join(f"{count} {kind}" for kind, count in group.items()) or "none" for group in groups)
        cells = (name, str(manifest.artifacts[name].border), str(coverage.partitions), *listed)
        table.add_row(*map(escape, cells))
    return table


def _quantization(function: IntegerFunction) -> Table:
    table = console.table("tensor", "made by", "scale", "zero point", "range", title="Quantisation")
    kinds = {node.name: type(node).__name__ for node in function.nodes}
    for name, q in function.quantization.items():
        low, high = ((code - q.zero_point) * q.scale for code in (-128, 127))
        table.add_row(
            escape(name), kinds.get(name, "input"), f"{q.scale:.6g}", str(q.zero_point), f"{low:.4g} .. {high:.4g}"
        )
    return table


def _facts(manifest: Manifest) -> None:
    proof, nodes = manifest.proof, manifest.proof.nodes
    moved = max(map(abs, proof.nudges.values()), default=0.0)
    lines = (
        *(f"Input: {spec.name} {list(spec.shape)} {spec.kind}" for spec in manifest.inputs),
        *(f"Output: {spec.name} {list(spec.shape)} {spec.kind}" for spec in manifest.outputs),
        f"Proof: {nodes.get('Add', 0)} additions over all 65,536 code pairs under {len(proof.rules)} rules, "
        f"{nodes.get('SiLU', 0)} SiLU tables clear of ties; {len(proof.nudges)} nudges, of at most {moved:.1e}",
        f"Largest sum: {proof.largest_accumulator:,} (Core ML's float32 counts to 16,777,216 by ones)",
        f"Golden codes: {manifest.golden_sha256}",
        "Made with: " + ", ".join(f"{tool} {version}" for tool, version in manifest.versions.items()),
    )
    for line in lines:
        console.out.print(line, markup=False, highlight=False, soft_wrap=True)
