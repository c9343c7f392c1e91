"""What ExecuTorch's own lowering makes of single operators once patches are applied to it: a line of JSON.

    python tests/patched_executorch.py FILE.patch...     of docs/upstream

Started in a process of its own, because ExecuTorch is patched as it is imported; nothing installed changes.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litehrnet_stage2.reference.integer_function import IntegerFunction
    from litehrnet_stage2.reference.quantization import Codes

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

ALONE = ("sigmoid", "tanh", "hardswish", "conv 3x3/2 padded unevenly")


class Patched(importlib.abc.MetaPathFinder):
    """Imports the modules of a folder instead of those installed; the folder holds a part of the package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        file = self._folder / f"{rest.replace('.', '/')}.py"
        if package != "executorch" or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(name, file)


def apply(patches: Sequence[str], folder: Path) -> None:
    """Copy the files that the patches change into a folder, and change them there."""
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (installed,) = spec.submodule_search_locations
    for patch in patches:
        for line in Path(patch).read_text().splitlines():
            if line.startswith("--- a/"):
                name = line.removeprefix("--- a/")
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((Path(installed) / name).read_bytes())
        subprocess.run(["git", "apply", str(Path(patch).resolve())], cwd=folder, check=True)


def functions() -> Iterator[tuple[str, IntegerFunction, tuple[Codes, ...]]]:
    """What is tried: the name, the function and the codes of its inputs."""
    from single_operators import ANY, ROWS, noise, q, settled

    from litehrnet_stage2.reference.freeze import assemble
    from litehrnet_stage2.reference.operators import Add, Resize
    from litehrnet_stage2.reference.settle import settle

    for name in ALONE:
        yield name, settled(ROWS[name]), ROWS[name].inputs
    nodes = [Resize(name="r", inputs=("x",), factor=2), Add(name="y", inputs=("r", "b"))]
    found = settle(nodes, {"x": ANY, "r": ANY, "b": q(0.031, -9), "y": q(0.07, 11)})
    inputs = {"x": noise(1, 16, 8, 8), "b": noise(1, 16, 16, 16)}
    shapes = {name: codes.shape for name, codes in inputs.items()}
    yield "resize", assemble("two", shapes, {"out": "y"}, found.nodes, found.quantization), tuple(inputs.values())


def tried(function: IntegerFunction, inputs: tuple[Codes, ...]) -> str:
    """Lower a function by ExecuTorch's own partitioner, run it, and say what came out."""
    import numpy as np
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    from litehrnet_stage2.converters.xnnpack_payload import operators
    from litehrnet_stage2.reference import golden
    from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
    from litehrnet_stage2.reference.contract.manifest import border_specs
    from litehrnet_stage2.reference.qdq_module import QDQModule
    from litehrnet_stage2.runtime.border import BorderProgram
    from litehrnet_stage2.runtime.program import open_program

    examples = tuple(torch.from_numpy(codes).to(memory_format=torch.channels_last) for codes in inputs)
    lowered = to_edge_transform_and_lower(
        torch.export.export(QDQModule(function).eval(), examples),
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    delegates = [m for n, m in lowered.exported_program().graph_module.named_children() if n.startswith("lowered")]
    found = [operator for delegate in delegates for operator in operators(delegate.processed_bytes)]
    try:
        program = open_program("executorch", lowered.to_executorch().buffer, threads=1, exact=True)
        bordered = BorderProgram(program, *border_specs(function), ARTIFACTS["executorch-codes"].border)
        (codes,) = bordered.to_codes(bordered.run(bordered.from_codes(*inputs)))
    except (RuntimeError, ValueError):
        return "does not load"
    if not all(operator.reads_codes and operator.writes_codes for operator in found):
        return "computes in float"
    due = golden.evaluate(function, *inputs)["out"]
    return "gives the golden codes" if np.array_equal(codes, due) else "gives other codes"


def main(patches: Sequence[str]) -> None:
    """Try every operator and print what came out of each."""
    with tempfile.TemporaryDirectory() as name:
        apply(patches, Path(name))
        sys.meta_path.insert(0, Patched(Path(name)))
        print(json.dumps({operator: tried(function, inputs) for operator, function, inputs in functions()}))


if __name__ == "__main__":
    main(sys.argv[1:])
