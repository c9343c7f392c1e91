"""Cells side by side as one, without moving a byte: an operator of ours for `torch.export`, a reshape in XNNPACK."""

from __future__ import annotations

from typing import Any

import torch
from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor
from executorch.backends.xnnpack.partition.config.generic_node_configs import UpsampleBilinear2dConfig
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import XNNGraph, XNNStaticReshape, XNode
from torch import Tensor

from litehrnet_stage2.converters.upstream.executorch_1_5 import edge_operators


@torch.library.custom_op("litehrnet_stage2::regroup", mutates_args=())
def regroup(x: Tensor, width: int) -> Tensor:
    """`[N, C, H, W]` to `[N, C*W/width, H, width]`: in channels-last memory the same values, in other cells."""
    count, channels, height, before = x.shape
    cells = x.permute(0, 2, 3, 1).reshape(count, height, width, channels * before // width)
    return cells.permute(0, 3, 1, 2).clone(memory_format=_layout(x))


@regroup.register_fake
def _(x: Tensor, width: int) -> Tensor:
    count, channels, height, before = x.shape
    shape = (count, channels * before // width, height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device).to(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    return torch.contiguous_format if x.is_contiguous() else torch.channels_last


REGROUP: Any = edge_operators.litehrnet_stage2.regroup.default
"""As lowering sees it."""


class RegroupConfig(UpsampleBilinear2dConfig):  # type: ignore[misc]
    """The partitioner takes it between a dequantise and a quantise."""

    target_name = "regroup.default"

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        """Codes alone."""
        return [ConfigPrecisionType.STATIC_QUANT]

    def get_original_aten(self) -> None:
        """There is nothing to be kept from decomposition."""
        return None


class RegroupVisitor(NodeVisitor):  # type: ignore[misc]
    """Serialises it as a reshape of what is channels last."""

    target = "litehrnet_stage2.regroup.default"

    def define_node(
        self, node: torch.fx.Node, xnn_graph: XNNGraph, vals_to_ids: dict[torch.fx.Node, int], debug_handle: int
    ) -> None:
        """Append the reshape."""
        self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids, convert_to_nhwc=True)
        count, channels, height, width = node.meta["val"].shape
        reshape = XNNStaticReshape(
            num_dims=4,
            new_shape=[count, height, width, channels],
            input_id=vals_to_ids[node.all_input_nodes[0]],
            output_id=vals_to_ids[node],
            flags=0,
        )
        xnn_graph.xnodes.append(XNode(xnode_union=reshape, debug_handle=debug_handle))
