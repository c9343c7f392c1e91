"""What is given to XNNPACK: nothing copied that need not be, and ExecuTorch's own lowering left as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import Tensor

from litehrnet_stage2.converters import xnnpack_lowering
from litehrnet_stage2.converters.upstream.executorch_1_5 import node_visitors
from litehrnet_stage2.converters.xnnpack_payload import operators
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.qdq_module import FloatQDQModule, QDQModule
from litehrnet_stage2.reference.stage2 import Stage2

Make = Callable[[int], IntegerFunction]


@pytest.fixture(scope="module")
def of_channels(trained: Callable[[Stage2Config], Stage2]) -> Make:
    """The least Stage2 that there is, with so many channels of features."""

    def make(channels: int) -> IntegerFunction:
        network = trained(Stage2Config(in_channels=channels, num_channels=(4, 8), num_blocks=(0, 0)))
        return freeze(QATStage2.from_float(network).calibrate(torch.randn(2, channels, 16, 24)))[0]

    return make


@pytest.mark.parametrize(("module", "transposes"), [(FloatQDQModule, 3), (QDQModule, 0)], ids=["float", "codes"])
def test_each_tensor_at_the_border_is_transposed_once(
    module: type[torch.nn.Module], transposes: int, of_channels: Make
) -> None:
    """The features have two readers; codes are channels last already."""
    example = torch.zeros(1, 16, 16, 24)
    if module is QDQModule:
        example = example.to(torch.int8).to(memory_format=torch.channels_last)
    program = xnnpack_lowering.lower(module(of_channels(16)), example)
    (delegate,) = (
        child for name, child in program.exported_program().graph_module.named_children() if "lowered" in name
    )
    assert Counter(o.kind for o in operators(delegate.processed_bytes))["XNNStaticTranspose"] == transposes


@pytest.mark.parametrize(("channels", "copied"), [(4, True), (16, False), (24, True), (32, False)])
def test_features_are_read_in_place_where_xnnpack_reads_nothing_behind_them(
    channels: int, copied: bool, of_channels: Make
) -> None:
    example = torch.zeros(1, channels, 16, 24)
    program = xnnpack_lowering.lower(FloatQDQModule(of_channels(channels)), example)
    content = xnnpack_lowering.serialize(program, example)
    (plan,) = deserialize_pte_binary(content).program.execution_plan
    features, *_ = (plan.values[i].val for i in plan.inputs)
    assert isinstance(features, Tensor)
    assert (features.allocation_info is not None) == copied


def test_the_stock_visitors_stand_again_after_lowering(of_channels: Make) -> None:
    """Whoever lowers a network of their own in the same process gets what ExecuTorch ships."""
    before = dict(node_visitors)
    xnnpack_lowering.lower(FloatQDQModule(of_channels(4)), torch.zeros(1, 4, 16, 24))
    assert node_visitors == before
    assert {visitor.__module__ for visitor in before.values()}.isdisjoint({xnnpack_lowering.__name__})
