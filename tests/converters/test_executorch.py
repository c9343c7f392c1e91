"""The `.pte`: one XNNPACK delegate with everything in it, the same bytes each time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.generic_node_configs import SigmoidConfig
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import DelegateCall

from litehrnet_stage2.converters import to_executorch, xnnpack_lowering
from litehrnet_stage2.converters.coverage import Coverage, CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction, save
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2
from litehrnet_stage2.runtime import Bundle

SMALL = Deployment()


def test_the_program_is_one_delegate_call_and_nothing_else(bundle_folder: Path) -> None:
    (plan,) = deserialize_pte_binary((bundle_folder / "stage2.pte").read_bytes()).program.execution_plan
    assert [delegate.id for delegate in plan.delegates] == ["XnnpackBackend"]
    (chain,) = plan.chains
    assert [type(step.instr_args) for step in chain.instructions] == [DelegateCall]
    assert plan.operators == []


def test_coverage_counts_every_operator_of_the_specification_in_int8(bundle_folder: Path) -> None:
    assert Bundle.open(bundle_folder).manifest.coverage["executorch"] == Coverage(
        int8={"convolution": 20, "sigmoid": 16, "mul": 16, "add": 6, "upsample_bilinear2d": 1},
        floating={},
        boundary={"quantize": 1, "dequantize": 2},
        partitions=1,
    )


@pytest.fixture(scope="module")
def without_blocks(trained: Callable[[Stage2Config], Stage2]) -> IntegerFunction:
    """The least Stage2 there is: 8 convolutions, 4 SiLUs, 2 additions and the resize."""
    network = trained(Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(0, 0)))
    return freeze(QATStage2.from_float(network).calibrate(torch.randn(2, 4, 16, 24)))[0]


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        (ALL_PARTITIONER_CONFIGS, "executorch: 0 sigmoid under `int8`, where the contract has 4"),
        (
            [c for c in xnnpack_lowering.CONFIGS if not issubclass(c, SigmoidConfig)],
            "executorch: .* where the contract has",
        ),
    ],
    ids=["computed in float inside of the delegate", "outside of the delegate"],
)
def test_an_operator_left_in_float_fails_the_conversion_and_writes_nothing(
    configs: list[type], message: str, without_blocks: IntegerFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the stock configurations XNNPACK converts to float32 and back around each sigmoid, without a word."""
    monkeypatch.setattr(xnnpack_lowering, "CONFIGS", configs)
    with pytest.raises(CoverageError, match=message):
        to_executorch.convert(without_blocks, tmp_path / "stage2.pte", SMALL)
    assert not (tmp_path / "stage2.pte").exists()


def test_converting_again_in_another_process_gives_the_same_bytes(
    small_function: IntegerFunction,
    small_bundle: Path,
    tmp_path: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Another process has other hash seeds and addresses."""
    save(small_function, tmp_path / "function.npz")
    done = python(
        "import sys; from pathlib import Path\n"
        "from litehrnet_stage2.converters import to_executorch, to_onnx\n"
        "from litehrnet_stage2.converters.targets import Deployment\n"
        "from litehrnet_stage2.reference.integer_function import load\n"
        "folder = Path(sys.argv[1]); function = load(folder / 'function.npz')\n"
        "deployment = Deployment()\n"
        "to_executorch.convert(function, folder / 'stage2.pte', deployment)\n"
        "to_onnx.convert(function, folder / 'stage2.onnx', deployment)\n",
        tmp_path,
        PYTHONHASHSEED="12345",
    )
    assert done.returncode == 0, done.stderr
    for name in ("stage2.pte", "stage2.onnx"):
        assert (tmp_path / name).read_bytes() == (small_bundle / name).read_bytes(), name
