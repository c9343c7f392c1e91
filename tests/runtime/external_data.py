"""An `.onnx` of which one weight lies in another file."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def external_tensor(location: str) -> TensorProto:
    """A float32 tensor `[1,1,1,1]` that is said to lie in the file `location`."""
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return weight


def one_convolution(weight: TensorProto) -> onnx.ModelProto:
    """A network of `x` to `y1`, a convolution by `weight`, and `y2`, which is `x`."""
    shape = [1, 1, 2, 2]
    nodes = [helper.make_node("Conv", ["x", "w"], ["y1"]), helper.make_node("Identity", ["x"], ["y2"])]
    borders = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y1", "y2")]
    graph = helper.make_graph(nodes, "g", borders[:1], borders[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def with_external_data(location: str) -> bytes:
    """The file of that network with its weight in another one."""
    return bytes(one_convolution(external_tensor(location)).SerializeToString())
