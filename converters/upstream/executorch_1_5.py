"""Private names of ExecuTorch 1.5, and of torch 2.13 where ExecuTorch's delegates are in its graphs."""

from __future__ import annotations

from typing import Any

from executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass import ChannelsLastTaggedReshapePass
from executorch.backends.xnnpack.operators import node_visitor
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir.dialects._ops import ops
from torch._higher_order_ops.executorch_call_delegate import executorch_call_delegate

PRIVATE = {
    "executorch.backends.xnnpack._passes.channels_last_tagged_reshape_pass": ("ChannelsLastTaggedReshapePass",),
    "executorch.backends.xnnpack.operators.node_visitor": ("_node_visitor_dict",),
    "executorch.exir._serialize._flatbuffer": ("_flatc_decompile",),
    "executorch.exir.dialects._ops": ("ops",),
    "executorch.exir.lowered_backend_module.LoweredBackendModule": ("_processed_bytes",),
    "torch._higher_order_ops.executorch_call_delegate": ("executorch_call_delegate",),
}

__all__ = [
    "call_delegate",
    "channels_last_operators",
    "decompile_flatbuffer",
    "edge_operators",
    "node_visitors",
    "set_processed_bytes",
]

node_visitors: dict[str, Any] = node_visitor._node_visitor_dict
"""XNNPACK's visitor of each operator, by its target: one in the whole process."""

channels_last_operators: set[Any] = ChannelsLastTaggedReshapePass.memory_sensitive_ops_nhwc
"""Those whose input XNNPACK is to have channels last: one set in the whole process."""

decompile_flatbuffer = _flatc_decompile
"""`(folder, schema, binary, flags)`: writes the JSON of a flatbuffer into the folder."""

edge_operators: Any = ops.edge
"""Operators as lowering sees them, by library and name."""

call_delegate: Any = executorch_call_delegate
"""The operator that stands for a delegate in a lowered graph."""


def set_processed_bytes(delegate: Any, content: bytes) -> None:
    """Give a lowered module other bytes than its backend made."""
    delegate._processed_bytes = content
