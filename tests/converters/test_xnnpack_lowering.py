"""What is given to XNNPACK: nothing copied that need not be, and ExecuTorch's own lowering left as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from executorch.exir.schema import Tensor
from single_operators import ROWS, settled

from litehrnet_stage2.converters import xnnpack_lowering
from litehrnet_stage2.converters.regrouping import regroup
from litehrnet_stage2.converters.upstream.executorch_1_5 import channels_last_operators, node_visitors
from litehrnet_stage2.converters.xnnpack_module import XnnpackModule
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


@pytest.mark.parametrize(("codes", "transposes"), [(False, 3), (True, 0)], ids=["float", "codes"])
def test_each_tensor_at_the_border_is_transposed_once(codes: bool, transposes: int, of_channels: Make) -> None:
    """The features have two readers; codes are channels last already."""
    module, example = QDQModule(of_channels(16)), torch.zeros(1, 16, 16, 24)
    if codes:
        example = example.to(torch.int8).to(memory_format=torch.channels_last)
    program = xnnpack_lowering.lower(module if codes else FloatQDQModule(module), example)
    (delegate,) = (
        child for name, child in program.exported_program().graph_module.named_children() if "lowered" in name
    )
    assert Counter(o.kind for o in operators(delegate.processed_bytes))["XNNStaticTranspose"] == transposes


@pytest.mark.parametrize(
    ("codes", "shape", "copied"),
    [
        (False, (1, 4, 16, 24), False),  # a multiple of 16 floats
        (False, (1, 16, 16, 24), False),
        (False, (1, 3, 6, 10), True),
        (True, (1, 4, 16, 24), True),
        (True, (1, 16, 16, 24), False),  # a multiple of 16 channels
        (True, (1, 24, 16, 24), True),
    ],
)
def test_features_are_read_in_place_where_xnnpack_reads_nothing_behind_them(
    codes: bool, shape: tuple[int, ...], copied: bool, of_channels: Make
) -> None:
    module, example = QDQModule(of_channels(shape[1])), torch.zeros(shape)
    if codes:
        example = example.to(torch.int8).to(memory_format=torch.channels_last)
    program = xnnpack_lowering.lower(module if codes else FloatQDQModule(module), example)
    content = xnnpack_lowering.serialize(program, example)
    (plan,) = deserialize_pte_binary(content).program.execution_plan
    features, *_ = (plan.values[i].val for i in plan.inputs)
    assert isinstance(features, Tensor)
    assert (features.allocation_info is not None) == copied


def test_regrouped_cells_are_the_same_bytes_channels_last() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).to(torch.int8)
    wider = regroup(x, 3)
    assert wider.shape == (2, 6, 4, 3)
    assert torch.equal(wider.permute(0, 2, 3, 1).flatten(), x.permute(0, 2, 3, 1).flatten())
    assert torch.equal(regroup(wider, 6), x)


def test_a_stem_and_a_head_move_nothing_for_cells_side_by_side() -> None:
    """Each is a convolution between reshapes, which XNNPACK gives the same memory; codes are not transposed."""
    for name, reshapes in (("conv 5x5/2 of 3", 1), ("conv 1x1 to 3", 2)):
        row = ROWS[name]
        example = torch.from_numpy(row.inputs[0]).to(memory_format=torch.channels_last)
        program = xnnpack_lowering.lower(XnnpackModule(settled(row)), example)
        (delegate,) = (
            child for name, child in program.exported_program().graph_module.named_children() if "lowered" in name
        )
        kinds = Counter(o.kind for o in operators(delegate.processed_bytes))
        assert kinds == {"XNNConv2d": 1, "XNNStaticReshape": reshapes}


def test_the_stock_visitors_stand_again_after_lowering(of_channels: Make) -> None:
    """Whoever lowers a network of their own in the same process gets what ExecuTorch ships."""
    before, last = dict(node_visitors), set(channels_last_operators)
    xnnpack_lowering.lower(FloatQDQModule(QDQModule(of_channels(4))), torch.zeros(1, 4, 16, 24))
    assert (node_visitors, channels_last_operators) == (before, last)
    assert {visitor.__module__ for visitor in before.values()}.isdisjoint({xnnpack_lowering.__name__})
