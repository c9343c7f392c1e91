"""Baselines: what stock tools make of a bundle's weights."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from litehrnet_stage2.apps.baselines.build import (
    BASELINES,
    GROUPS,
    BaselineUnavailableError,
    baseline_candidates,
    build_baseline,
    calibration,
)
from litehrnet_stage2.reference.float_module import FloatModule
from litehrnet_stage2.runtime import Bundle
from litehrnet_stage2.runtime.parity import sqnr_db
from litehrnet_stage2.runtime.program import open_program

warnings.filterwarnings("ignore", module="torch")


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return Bundle.open(small_bundle)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def golden_floats(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    golden, (q1, q2) = bundle.golden(), bundle.function().output_quantization.values()
    return q1.dequantize(golden.outputs["y1"]), q2.dequantize(golden.outputs["y2"])


def signal_to_noise(bundle: Bundle, found: list[np.ndarray]) -> float:
    """In dB, of the worse output, on the inputs that baselines are calibrated with."""
    count = len(calibration(bundle)[0])
    due = golden_floats(bundle)
    return min(sqnr_db(y[:count], x[:count] - y[:count]) for x, y in zip(found, due, strict=True))


def test_the_float_network_has_the_weights_of_the_integer_function(bundle: Bundle) -> None:
    """What differs is the rounding of activations, and nothing a BatchNorm or bias could explain."""
    with torch.no_grad():
        found = FloatModule(bundle.function()).eval()(torch.from_numpy(bundle.golden().x))
    assert signal_to_noise(bundle, [y.numpy() for y in found]) > 25


def test_calibration_leaves_out_the_inputs_made_to_saturate(bundle: Bundle) -> None:
    (features,) = calibration(bundle)
    assert 0 < len(features) < len(bundle.golden().x)
    assert (features == bundle.golden().x[: len(features)]).all()


@pytest.mark.parametrize("name", [name for name, baseline in BASELINES.items() if baseline.group != "litert"])
def test_a_baseline_computes_nearly_what_the_bundle_does(bundle: Bundle, cache: Path, name: str) -> None:
    path = build_baseline(bundle, BASELINES[name], cache_dir=cache)
    program = open_program(BASELINES[name].library, path.read_bytes(), threads=1, exact=False)
    found: list[list[np.ndarray]] = [[], []]
    for image in calibration(bundle)[0]:
        for y, outputs in zip(program.finish(program.run(program.prepare(image[None]))), found, strict=True):
            outputs.append(y.copy())
    assert signal_to_noise(bundle, [np.concatenate(outputs) for outputs in found]) > 15


def test_the_litert_baseline_computes_nearly_what_the_bundle_does(bundle: Bundle, cache: Path) -> None:
    pytest.importorskip("litert_torch", reason="the extra `baselines` is not installed")
    test_a_baseline_computes_nearly_what_the_bundle_does(bundle, cache, "LiteRT int8")


def test_a_baseline_is_built_once(bundle: Bundle, cache: Path) -> None:
    steps: list[str] = []
    first = build_baseline(bundle, BASELINES["fp32 .onnx"], cache_dir=cache)
    made = first.stat().st_mtime_ns
    again = build_baseline(bundle, BASELINES["fp32 .onnx"], cache_dir=cache, progress=steps.append)
    assert again == first
    assert first.stat().st_mtime_ns == made
    assert not steps


def test_another_bundle_has_baselines_of_its_own(bundle: Bundle, other_bundle: Path, cache: Path) -> None:
    other = Bundle.open(other_bundle)
    paths = {build_baseline(one, BASELINES["fp32 .onnx"], cache_dir=cache) for one in (bundle, other)}
    assert len(paths) == 2


def test_a_build_that_fails_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from litehrnet_stage2.apps.baselines import onnx_files

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(onnx_files, "_export", fail)
    with pytest.raises(RuntimeError, match="no"):
        build_baseline(bundle, BASELINES["fp32 .onnx"], cache_dir=tmp_path)
    assert not list((tmp_path / "baselines").iterdir())


def test_candidates_of_baselines_are_held_to_no_codes(bundle: Bundle, cache: Path) -> None:
    candidates = baseline_candidates(bundle, ["fp32"], threads=[1, 2], cache_dir=cache)
    assert [(c.name, c.threads) for c in candidates] == [
        ("fp32 .pte", 1),
        ("fp32 .pte", 2),
        ("fp32 .onnx", 1),
        ("fp32 .onnx", 2),
    ]
    assert not any(candidate.exact for candidate in candidates)


def test_unknown_baselines_are_refused(bundle: Bundle) -> None:
    with pytest.raises(ValueError, match=f"unknown baselines 'fast' to run against: known are {', '.join(GROUPS)}"):
        baseline_candidates(bundle, ["fast"], threads=[1])


def test_a_missing_exporter_is_named_with_what_installs_it(bundle: Bundle, tmp_path: Path) -> None:
    baseline = dataclasses.replace(BASELINES["LiteRT int8"], module="no_such_exporter")
    with pytest.raises(
        BaselineUnavailableError, match=r"int8.tflite cannot be built .*pip install -e '.\[baselines\]'"
    ):
        build_baseline(bundle, baseline, cache_dir=tmp_path)
