"""Each operator alone, as a function of one node, in every runtime; every code where the domain is finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from single_operators import ANY, ROWS, settled, unary

from litehrnet_stage2.converters import to_coreml, to_executorch_codes, to_litert_codes, to_onnx_codes
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.lowering import LoweringError
from litehrnet_stage2.reference.operators import KINDS, MaxPool
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate
from litehrnet_stage2.runtime.program import open_program


def test_every_kind_of_operator_has_a_row() -> None:
    assert {type(row.node) for row in ROWS.values()} == set(KINDS.values())


def test_litert_refuses_what_it_cannot_give_exactly(tmp_path: Path) -> None:
    """A pooling that skips cells, which XNNPACK does not take."""
    skipping = MaxPool(name="y", inputs=("x",), kernel=(2, 2), stride=(3, 3))
    with pytest.raises(LoweringError, match=r"LiteRT .*`y`"):
        to_litert_codes.convert(settled(unary(skipping, ANY)), tmp_path / "alone.tflite", Deployment())


CONVERTERS: dict[str, Callable[..., object]] = {
    "executorch-codes": to_executorch_codes.convert,
    "litert-codes": to_litert_codes.convert,
    "onnx-codes": to_onnx_codes.convert,
}
CASES = [(target, name) for target in CONVERTERS for name in ROWS]


@pytest.mark.parametrize(("target", "name"), CASES)
def test_it_gives_the_golden_codes(target: str, name: str, tmp_path: Path) -> None:
    function = settled(ROWS[name])
    artifact = ARTIFACTS[target]
    path = tmp_path / artifact.file(function.name)
    CONVERTERS[target](function, path, Deployment())
    program = open_program(artifact.library, path.read_bytes(), threads=1, exact=True)
    bordered = BorderProgram(program, *border_specs(function), artifact.border)
    (found,) = bordered.to_codes(bordered.run(bordered.from_codes(*ROWS[name].inputs)))
    np.testing.assert_array_equal(found, golden.evaluate(function, *ROWS[name].inputs)["out"])


@pytest.mark.parametrize("name", ROWS)
def test_it_gives_the_golden_codes_in_core_ml(name: str, tmp_path: Path) -> None:
    function = settled(ROWS[name])
    to_coreml.convert(function, tmp_path / "alone.mlpackage", Deployment())
    values = {
        read: function.quantization[read].dequantize(codes)
        for read, codes in zip(function.inputs, ROWS[name].inputs, strict=True)
    }
    found = evaluate(MilProgram.load(tmp_path / "alone.mlpackage"), values)["out"]
    due = golden.evaluate(function, *ROWS[name].inputs)["out"]
    np.testing.assert_array_equal(function.output_quantization["out"].quantize(found), due)
