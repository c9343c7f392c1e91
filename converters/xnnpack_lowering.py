"""Gives XNNPACK a whole exported module as one delegate in int8, and no more copies than it needs.

ExecuTorch's own partitioner and serialiser leave things out, and each is added here: sigmoid, resize and padding
in int8, the quantisation of a resize's tensors, and one transposition for several readers.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from executorch.backends.xnnpack.operators import node_visitor
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.generic_node_configs import (
    ConstantPadConfig,
    HardswishConfig,
    SigmoidConfig,
    TanhConfig,
    UpsampleBilinear2dConfig,
)
from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import (
    XNNConcatenate2,
    XNNConcatenate3,
    XNNConcatenate4,
    XNNConcatenate5,
    XNNGraph,
    XNNStaticReshape,
    XNNStaticResizeBilinear2D,
    XNode,
)
from executorch.backends.xnnpack.utils.xnnpack_constants import XNN_INVALID_VALUE_ID
from executorch.exir import (
    EdgeCompileConfig,
    EdgeProgramManager,
    ExecutorchBackendConfig,
    to_edge_transform_and_lower,
)
from executorch.exir.passes import MemoryPlanningPass
from torch import nn

from litehrnet_stage2.converters.regrouping import REGROUP, RegroupConfig, RegroupVisitor
from litehrnet_stage2.converters.upstream.executorch_1_5 import channels_last_operators, node_visitors
from litehrnet_stage2.reference.lowering import LoweringError

READ_AT_ONCE = 16
"""Values that XNNPACK's kernels read at once; where there are no multiple of it, the last read goes past their end."""


def lower(module: nn.Module, *examples: torch.Tensor) -> EdgeProgramManager:
    """Export a module and give XNNPACK what it takes of it."""
    exported = torch.export.export(module.eval(), examples)
    with _visitors():
        return to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner(configs=CONFIGS)],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )


def serialize(program: EdgeProgramManager, *examples: torch.Tensor) -> bytes:
    """The bytes of the `.pte`, of a program that was lowered with these examples.

    An input of which XNNPACK reads nothing past the end is read where the caller has it, instead of being
    copied first. XNNPACK asks for 16 spare bytes behind a tensor (`XNN_EXTRA_BYTES`), which a caller's does not have.
    It reads them only where what it walks through at once is no multiple of its vectors: of floats all values, which
    are quantised first, of codes the channels of a pixel.
    """
    past_the_end = any(
        (example.numel() if example.is_floating_point() else example.shape[1]) % READ_AT_ONCE for example in examples
    )
    planning = MemoryPlanningPass(alloc_graph_input=past_the_end)
    content: bytes = program.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).buffer
    return content


class _QuantizedSigmoid(SigmoidConfig):  # type: ignore[misc]
    """Sigmoid, also between a dequantise and a quantise (the stock one takes float32 only)."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class _QuantizedResize(UpsampleBilinear2dConfig):  # type: ignore[misc]
    """Bilinear resize, also between a dequantise and a quantise."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class _QuantizedTanh(TanhConfig):  # type: ignore[misc]
    """Tanh, also between a dequantise and a quantise."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class _QuantizedHardswish(HardswishConfig):  # type: ignore[misc]
    """Hardswish, also between a dequantise and a quantise."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


class _QuantizedPad(ConstantPadConfig):  # type: ignore[misc]
    """Zeros around a map, also between a dequantise and a quantise; XNNPACK pads codes with the zero point."""

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]


_QUANTIZED = {
    ConstantPadConfig: _QuantizedPad,
    SigmoidConfig: _QuantizedSigmoid,
    UpsampleBilinear2dConfig: _QuantizedResize,
    TanhConfig: _QuantizedTanh,
    HardswishConfig: _QuantizedHardswish,
}

_StockTranspose: Any = node_visitors["aten._to_copy.default"]
"""Not to be had by its name: what registers a visitor leaves None in its module."""


class _ResizeVisitor(node_visitor.NodeVisitor):  # type: ignore[misc]
    """Serialises a resize with its tensors' quantisation, without which the program fails at load."""

    target = "aten.upsample_bilinear2d.vec"

    def define_node(
        self, node: torch.fx.Node, xnn_graph: XNNGraph, vals_to_ids: dict[torch.fx.Node, int], debug_handle: int
    ) -> None:
        self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids, convert_to_nhwc=True)
        height, width = node.meta["val"].shape[-2:]
        resize = XNNStaticResizeBilinear2D(
            new_height=height,
            new_width=width,
            input_id=vals_to_ids[node.all_input_nodes[0]],
            output_id=vals_to_ids[node],
            flags=0,
        )
        xnn_graph.xnodes.append(XNode(xnode_union=resize, debug_handle=debug_handle))


class _NearestConfig(UpsampleBilinear2dConfig):  # type: ignore[misc]
    """Nearest resize between a dequantise and a quantise, for which XNNPACK has no operator of its own."""

    target_name = "upsample_nearest2d.vec"

    def supported_precision_types(self) -> list[ConfigPrecisionType]:
        return [ConfigPrecisionType.STATIC_QUANT]

    def get_original_aten(self) -> Any:
        return torch.ops.aten.upsample_nearest2d.vec


class _NearestVisitor(node_visitor.NodeVisitor):  # type: ignore[misc]
    """Serialises a nearest resize as two concatenations of a tensor with itself, between reshapes.

    Rows of cells `[N*H*W, C]` joined `factor` times are columns doubled; rows of lines `[N*H, factor*W*C]`, lines.
    """

    target = "aten.upsample_nearest2d.vec"

    def define_node(
        self, node: torch.fx.Node, xnn_graph: XNNGraph, vals_to_ids: dict[torch.fx.Node, int], debug_handle: int
    ) -> None:
        self.define_nodes_tensor_inputs_outputs(node, xnn_graph, vals_to_ids)
        source, result = vals_to_ids[node.all_input_nodes[0]], vals_to_ids[node]
        before, after = (_shape(xnn_graph, value) for value in (source, result))
        # Channels last, a cell has all channels; otherwise each plane is an image of its own.
        last = before[3] == after[3]
        cell = before[3] if last else 1
        width = before[2] if last else before[3]
        factor = after[1] // before[1] if last else after[2] // before[2]
        lines = math.prod(before) // (width * cell)
        if factor not in _CONCATENATIONS:
            raise LoweringError(
                f"XNNPACK has no exact form of a nearest resize by {factor}: resize in steps of at most 5"
            )

        def append(operator: Any) -> None:
            xnn_graph.xnodes.append(XNode(xnode_union=operator, debug_handle=debug_handle))

        def reshaped(value: int, shape: list[int], into: int | None = None) -> int:
            into = _like(xnn_graph, result, shape) if into is None else into
            append(XNNStaticReshape(num_dims=len(shape), new_shape=shape, input_id=value, output_id=into, flags=0))
            return into

        def repeated(value: int, shape: list[int]) -> int:
            into = _like(xnn_graph, result, [shape[0], factor * shape[1]])
            inputs = {f"input{i}_id": value if i <= factor else XNN_INVALID_VALUE_ID for i in range(1, 6)}
            append(_CONCATENATIONS[factor](axis=1, output_id=into, flags=0, **inputs))
            return into

        cells, wide = [lines * width, cell], [lines, factor * width * cell]
        value = repeated(reshaped(source, cells), cells)
        value = repeated(reshaped(value, wide), wide)
        reshaped(value, after, into=result)


_CONCATENATIONS = {2: XNNConcatenate2, 3: XNNConcatenate3, 4: XNNConcatenate4, 5: XNNConcatenate5}
"""By how many tensors they join."""


def _shape(graph: XNNGraph, value: int) -> list[int]:
    """The dimensions of a value, as XNNPACK has it."""
    return list(_tensor(graph, value).dims)


def _tensor(graph: XNNGraph, value: int) -> Any:
    union = graph.xvalues[value].xvalue_union
    return getattr(union, "tensor_value", union)  # a quantised tensor wraps a plain one


def _like(graph: XNNGraph, value: int, shape: list[int]) -> int:
    """A new value inside of the graph, of another shape and the same quantisation."""
    graph.xvalues.append(copy.deepcopy(graph.xvalues[value]))
    number = len(graph.xvalues) - 1
    tensor = _tensor(graph, number)
    tensor.dims, tensor.num_dims, tensor.id_out = shape, len(shape), number
    tensor.external_id, tensor.flags = XNN_INVALID_VALUE_ID, 0
    return number


class _TransposeVisitor(_StockTranspose):  # type: ignore[misc]
    """Transposes a tensor once for all that read it so (the stock visitor does it for each of them)."""

    target = "aten._to_copy.default"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._transposed: dict[tuple[int, torch.memory_format], int] = {}

    def define_node(
        self, node: torch.fx.Node, xnn_graph: XNNGraph, vals_to_ids: dict[torch.fx.Node, int], debug_handle: int
    ) -> None:
        source: torch.fx.Node = node.all_input_nodes[0]
        layout: Any = node.kwargs.get("memory_format", torch.contiguous_format)
        # By the tensor's number, which all the dequantise nodes of a tensor share.
        known = self._transposed.get((vals_to_ids.get(source, -1), layout))
        if known is not None and node not in self.external_ids:
            vals_to_ids[node] = known
            return
        super().define_node(node, xnn_graph, vals_to_ids, debug_handle)
        self._transposed[vals_to_ids[source], layout] = vals_to_ids[node]


CONFIGS = [*(_QUANTIZED.get(config, config) for config in ALL_PARTITIONER_CONFIGS), _NearestConfig, RegroupConfig]
"""What the partitioner takes."""


@contextlib.contextmanager
def _visitors() -> Iterator[None]:
    """ExecuTorch knows one visitor an operator in the whole process: ours stand there only while we lower."""
    known = node_visitors
    visitors = (_ResizeVisitor, _NearestVisitor, _TransposeVisitor, RegroupVisitor)
    ours = {visitor.target: visitor for visitor in visitors}
    stock = {target: known[target] for target in ours if target in known}
    known.update(ours)
    channels_last_operators.add(REGROUP)
    try:
        yield
    finally:
        channels_last_operators.discard(REGROUP)
        for target in ours:
            del known[target]
        known.update(stock)
