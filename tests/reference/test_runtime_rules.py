"""The rules of addition against the runtimes' own kernels."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
from numpy.typing import NDArray
from onnx import TensorProto, helper

from litehrnet_stage2.reference.qdq_module import dequantize, quantize
from tests.reference.arithmetic.scalar import OPERANDS, Operands, power_of_two_operands, random_operands
from tests.reference.arithmetic.test_addition_rules import modelled


def onnxruntime_sums(operands: Operands) -> NDArray[np.int8]:
    """ONNX Runtime's QLinearAdd over all pairs of uint8 codes."""
    names = ("a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "c_scale", "c_zero")
    graph = helper.make_graph(
        [helper.make_node("QLinearAdd", names, ["c"], domain="com.microsoft")],
        "add",
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [65_536]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.UINT8, [65_536])],
        [
            tensor
            for name, q in zip("abc", operands, strict=True)
            for tensor in (
                helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, [], [float(q.scale)]),
                helper.make_tensor(f"{name}_zero", TensorProto.UINT8, [], [q.zero_point + 128]),
            )
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    a, b = (codes.ravel().astype(np.uint8) for codes in np.mgrid[:256, :256])
    (sums,) = session.run(None, {"a": a, "b": b})
    return (sums.astype(np.int16) - 128).astype(np.int8).reshape(256, 256)


def test_onnxruntime_adds_as_one_of_its_modelled_rules_does_on_every_pair() -> None:
    """On scales that nothing was nudged for; one rule must explain them all."""
    candidates: set[str] | None = None
    for operands in [power_of_two_operands(), *(random_operands(seed) for seed in range(40))]:
        found = onnxruntime_sums(operands)
        equal = {rule for rule, sums in modelled(operands).items() if "MLAS" in rule and (sums == found).all()}
        candidates = equal if candidates is None else candidates & equal
    assert candidates


def xnnpack_sums(operands: Operands) -> NDArray[np.int8]:
    """The int8 addition of ExecuTorch's XNNPACK over all pairs."""
    qa, qb, out = operands

    class Sum(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            left, right = (dequantize(quantize(x, q), q) for x, q in ((a, qa), (b, qb)))
            return dequantize(quantize(left + right, out), out)

    codes = np.mgrid[-128:128, -128:128].astype(np.int8)
    inputs = tuple(torch.from_numpy(q.dequantize(c)) for c, q in zip(codes, (qa, qb), strict=True))
    program = to_edge_transform_and_lower(
        torch.export.export(Sum(), inputs), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    (sums,) = _load_for_executorch_from_buffer(program.buffer).run_method("forward", inputs)
    return out.quantize(sums.numpy())


@pytest.mark.parametrize("operands", OPERANDS)
def test_executorch_adds_as_the_xnnpack_rule_does_on_every_pair(operands: Operands) -> None:
    np.testing.assert_array_equal(xnnpack_sums(operands), modelled(operands)["XNNPACK fixed point"])
