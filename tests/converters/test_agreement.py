"""Every runtime gives the golden codes, on inputs and a configuration that nobody tuned for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from litehrnet_stage2.apps import example
from litehrnet_stage2.reference.contract import artifacts
from litehrnet_stage2.reference.integer_function import Quantization
from litehrnet_stage2.runtime import Bundle, check_parity, expected, open_session
from litehrnet_stage2.runtime.coreml import MilProgram, evaluate

RUNTIMES = tuple(
    name
    for name, row in artifacts.RUNTIMES.items()
    if row.checks and (row.artifact is None or row.artifact.default) and row.library != "coreml-eval"
)
"""Those of the default artifacts; the evaluator, which takes minutes, has a test of its own below."""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_golden_input_gives_the_golden_codes(runtime: str, bundle_folder: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    result = check_parity(open_session(bundle, runtime), bundle.golden())
    assert {name: y.mismatches for name, y in result.outputs.items()} == {"y1": 0, "y2": 0}
    assert result.codes_sha256 == result.golden_sha256 == bundle.manifest.golden_sha256


@pytest.fixture(scope="module")
def unseen() -> NDArray[np.float32]:
    """Features that neither calibration nor the golden inputs have: photographs and noise of three widths."""
    noise = np.random.default_rng(11).standard_normal((3, 32, 64, 128))
    noise *= np.array([0.05, 1, 20])[:, None, None, None]
    return np.concatenate([example.features(7)[5:], noise]).astype(np.float32)


@pytest.mark.parametrize("runtime", RUNTIMES[1:])
def test_inputs_never_seen_before_give_the_golden_codes(
    runtime: str, bundle_folder: Path, unseen: NDArray[np.float32]
) -> None:
    bundle = Bundle.open(bundle_folder)
    result = check_parity(open_session(bundle, runtime), expected(bundle.function(), unseen), unsnapped=[unseen])
    assert {name: y.mismatches for name, y in result.outputs.items()} == {"y1": 0, "y2": 0}
    assert result.flips is not None
    assert result.flips.off_grid > unseen.size // 2
    assert result.flips.outputs < result.flips.compared / 1000


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_configuration_and_size_agrees_as_well(runtime: str, other_bundle: Path) -> None:
    bundle = Bundle.open(other_bundle)
    assert bundle.manifest.inputs[0].shape == (1, 32, 32, 48)
    assert [spec.shape for spec in bundle.manifest.outputs] == [(1, 16, 32, 48), (1, 24, 16, 24)]
    assert check_parity(open_session(bundle, runtime), bundle.golden()).passed


def test_another_configuration_agrees_in_core_ml(other_bundle: Path) -> None:
    bundle = Bundle.open(other_bundle)
    golden, program = bundle.golden(), MilProgram.load(other_bundle / "stage2.mlpackage")
    for index in range(len(golden.x)):
        outputs = evaluate(program, {"features": golden.x[index : index + 1]})
        for spec, due in zip(bundle.manifest.outputs, (golden.outputs["y1"], golden.outputs["y2"]), strict=True):
            q = Quantization(np.float32(spec.scale), spec.zero_point)
            np.testing.assert_array_equal(q.quantize(outputs[spec.name])[0], due[index])
