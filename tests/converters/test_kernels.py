"""The modelled rules of products and means against the runtimes' own kernels, on scales that nothing was nudged for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.converters import to_executorch_codes, to_onnx_codes
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import runtime_rules
from litehrnet_stage2.reference.contract.artifacts import ARTIFACTS
from litehrnet_stage2.reference.contract.manifest import border_specs
from litehrnet_stage2.reference.freeze import assemble
from litehrnet_stage2.reference.operators import Mean, Mul, Operator
from litehrnet_stage2.reference.quantization import Codes, Quantization
from litehrnet_stage2.runtime.border import BorderProgram
from litehrnet_stage2.runtime.program import open_program

CONVERTERS: dict[str, Callable[..., object]] = {
    "executorch-codes": to_executorch_codes.convert,
    "onnx-codes": to_onnx_codes.convert,
}
RUNTIMES = [("executorch-codes", "XNNPACK"), ("onnx-codes", "MLAS")]
SEEDS = range(8)
CELLS = [(4, 4), (3, 5), (7, 7)]


def quantizations(seed: int, count: int) -> list[Quantization]:
    """Scales up to a factor of ten apart; at the seed 0 powers of two, which make exact ties."""
    rng = np.random.default_rng(seed)
    scales = 10 ** rng.uniform(-2, -1, count) if seed else np.full(count, 0.5)
    return [Quantization(np.float32(s), int(z)) for s, z in zip(scales, rng.integers(-40, 40, count), strict=True)]


def run(
    target: str, node: Operator, read: dict[str, Quantization], out: Quantization, folder: Path, *codes: Codes
) -> Codes:
    """The codes that a runtime gives for one node, its scales as they are."""
    shapes = {name: x.shape for name, x in zip(node.inputs, codes, strict=True)}
    function = assemble("alone", shapes, {"out": "y"}, (node,), read | {"y": out})
    artifact = ARTIFACTS[target]
    path = folder / artifact.file(function.name)
    CONVERTERS[target](function, path, Deployment())
    program = open_program(artifact.library, path.read_bytes(), threads=1, exact=True)
    bordered = BorderProgram(program, *border_specs(function), artifact.border)
    (found,) = bordered.to_codes(bordered.run(bordered.from_codes(*codes)))
    return np.array(found)  # a copy: ExecuTorch's outputs lie in its program's memory


def product_operands(seed: int) -> tuple[Quantization, Quantization, Quantization]:
    """The result's scale grows with the second factor's, so that not all products saturate."""
    a, b, out = quantizations(seed, 3)
    return a, b, Quantization(np.float32(out.scale * b.scale * np.float32(40)), out.zero_point)


@pytest.mark.parametrize(("target", "runtime"), RUNTIMES)
def test_one_modelled_rule_explains_every_product_of_a_runtime(target: str, runtime: str, tmp_path: Path) -> None:
    candidates: set[str] | None = None
    pairs = [codes.reshape(1, 16, 64, 64) for codes in runtime_rules.code_pairs()]
    for seed in SEEDS:
        a, b, out = product_operands(seed)
        found = run(target, Mul(name="y", inputs=("a", "b")), {"a": a, "b": b}, out, tmp_path, *pairs)
        rules = {rule: codes for rule, codes in runtime_rules.products(a, b, out) if runtime in rule}
        equal = {rule for rule, codes in rules.items() if np.array_equal(codes.ravel(), found.ravel())}
        candidates = equal if candidates is None else candidates & equal
    assert candidates


def every_sum(height: int, width: int) -> Codes:
    """A channel for each sum that the codes of a map can have: int8 `[1, 255 * cells + 1, height, width]`."""
    cells = height * width
    raised = np.arange(255 * cells + 1)[:, None]
    codes = raised // cells + (np.arange(cells) < raised % cells) - 128
    return codes.astype(np.int8).reshape(1, -1, height, width)


@pytest.mark.parametrize(("target", "runtime"), RUNTIMES)
def test_one_modelled_rule_explains_every_mean_of_a_runtime(target: str, runtime: str, tmp_path: Path) -> None:
    candidates: set[str] | None = None
    for seed, (height, width) in enumerate(CELLS * 2):
        cells = height * width
        read, out = quantizations(seed, 2)
        codes = every_sum(height, width)
        raw = codes.astype(np.int64).sum(axis=(2, 3)).ravel()
        found = run(target, Mean(name="y", inputs=("x",), cells=cells), {"x": read}, out, tmp_path, codes).ravel()
        rules = {rule: due for rule, due in runtime_rules.means(raw, cells, read, out) if runtime in rule}
        equal = {rule for rule, due in rules.items() if np.array_equal(due, found)}
        candidates = equal if candidates is None else candidates & equal
    assert candidates
