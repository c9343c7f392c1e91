"""An operator is a file of its own and a line in each table: here one that the function does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from litehrnet_stage2.converters import (
    litert_lowering,
    to_coreml,
    to_executorch,
    to_executorch_codes,
    to_litert,
    to_litert_codes,
    to_onnx,
    to_onnx_codes,
)
from litehrnet_stage2.converters.coverage import always
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import float_module, golden, qdq_module
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.integer_function import IntegerFunction, load, save
from litehrnet_stage2.reference.lowering import LoweringError
from litehrnet_stage2.reference.operators import KINDS, Concat, Operator, Shape
from litehrnet_stage2.reference.quantization import Codes, Quantization
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.program import open_program


@dataclass(frozen=True, kw_only=True)
class Twice(Operator):
    """The codes of its input, and behind them the same again."""

    moves_codes: ClassVar[bool] = True

    def shape(self, *inputs: Shape) -> Shape:
        count, channels, *size = inputs[0]
        return (count, 2 * channels, *size)

    def evaluate(self, codes: Sequence[Codes], reads: Sequence[Quantization], out: Quantization) -> Codes:
        return np.concatenate([codes[0], codes[0]], axis=1)


def joined(lower: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """How a converter writes it: as it writes a concatenation of the input with itself."""
    return lambda graph, node: lower(graph, Concat(name=node.name, inputs=node.inputs * 2))


LINES: list[tuple[Any, Any]] = [
    (float_module.LOWER, lambda module, node, x: torch.cat([x, x], dim=1)),
    (qdq_module.LOWER, lambda module, node, read: torch.cat([read(node.input), read(node.input)], dim=1)),
    (to_executorch.INT8, always("XNNConcatenate2")),
    (to_onnx.LOWER, joined(to_onnx.LOWER[Concat])),
    (to_onnx.OPERATORS, always("Concat on codes")),
    (to_coreml.LOWER, joined(to_coreml.LOWER[Concat])),
    (to_coreml.OPERATORS, always("concat")),
    (litert_lowering.LOWER, joined(litert_lowering.LOWER[Concat])),
    (to_litert.OPERATORS, always("CONCATENATION")),
]
"""How each format writes it, and what its coverage contract calls that."""


@pytest.fixture
def function() -> IntegerFunction:
    node, q = Twice(name="y", inputs=("x",)), Quantization(np.float32(0.05), 3)
    return assemble("alone", {"x": (1, 8, 6, 10)}, {"out": "y"}, [node], {"x": q, "y": q})


CONVERT = {
    "executorch-codes": to_executorch_codes.convert,
    "litert-codes": to_litert_codes.convert,
    "onnx-codes": to_onnx_codes.convert,
    "coreml": to_coreml.convert,
}


@pytest.mark.parametrize("target", CONVERT)
def test_without_its_lines_a_converter_refuses_it_by_name(
    function: IntegerFunction, target: str, tmp_path: Path
) -> None:
    with pytest.raises(LoweringError, match=r"has no exact form of Twice \(`y`\)"):
        CONVERT[target](function, tmp_path / "alone", Deployment())


@pytest.mark.parametrize("target", CONVERT)
def test_with_them_every_runtime_gives_its_golden_codes(
    function: IntegerFunction, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "twice", Twice)
    for table, line in LINES:
        monkeypatch.setitem(table, Twice, line)
    save(function, tmp_path / "function.npz")
    function = load(tmp_path / "function.npz")
    artifact = ARTIFACTS[target]
    path = tmp_path / artifact.file(function.name)
    CONVERT[target](function, path, Deployment())
    library = next(iter(artifact.runtimes.values()))
    content = path if path.is_dir() else path.read_bytes()
    program = BorderProgram(
        open_program(library, content, threads=1, exact=True), *border_specs(function), artifact.border
    )
    codes = np.random.default_rng(0).integers(-128, 128, (1, 8, 6, 10)).astype(np.int8)
    (found,) = program.to_codes(program.run(program.from_codes(codes)))
    np.testing.assert_array_equal(found, golden.evaluate(function, codes)["out"])
