"""The `.onnx`: what ONNX Runtime makes of it, and the types it is written in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import small_networks as small
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from litehrnet_stage2.converters import to_onnx as converter
from litehrnet_stage2.converters import to_onnx_codes
from litehrnet_stage2.converters.coverage import CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.freeze import assemble, freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization
from litehrnet_stage2.reference.network import quantize
from litehrnet_stage2.reference.operators import Conv, Resize, SiLU, resize

SMALL = Deployment()


def optimised(model: Path, folder: Path) -> Counter[str]:
    """Operators after ONNX Runtime's own optimisation on this machine."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_optimised_every_operator_is_an_integer_one_but_the_resize(bundle_folder: Path, tmp_path: Path) -> None:
    counts = optimised(bundle_folder / "stage2.onnx", tmp_path)
    due = {"QLinearConv": 20, "QLinearSigmoid": 16, "QLinearMul": 16, "QLinearAdd": 6, "Resize": 1}
    assert {kind: counts[kind] for kind in due} == due
    assert not {"Conv", "Sigmoid", "Mul", "Add"} & set(counts)
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (2, 3)


def test_no_transpose_is_left_at_the_border_of_codes(function: IntegerFunction, tmp_path: Path) -> None:
    """With channels first there were three here: ONNX Runtime's convolutions of codes read channels last."""
    model = converter.build_codes(function)
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 3
    onnx.save(model, tmp_path / "stage2-codes.onnx")
    counts = optimised(tmp_path / "stage2-codes.onnx", tmp_path)
    assert (counts["QLinearConv"], counts["Transpose"]) == (20, 0)


def test_a_cameras_interleaved_bytes_are_the_input_of_the_artifact_with_codes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    network = small.random(small.ThreeBranches(), images.float() / 255)
    converted, _ = freeze(quantize(network, images).calibrate(images))
    to_onnx_codes.convert(converted, tmp_path / "network-codes.onnx", SMALL)
    session = onnxruntime.InferenceSession(tmp_path / "network-codes.onnx", providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)  # rows of RGB, RGB, RGB
    found = session.run(list(converted.outputs), {"image": frame[None]})
    codes = (np.ascontiguousarray(frame.transpose(2, 0, 1))[None] ^ np.uint8(128)).view(np.int8)
    for y, due in zip(found, golden.evaluate(converted, codes).values(), strict=True):
        np.testing.assert_array_equal((y ^ np.uint8(128)).view(np.int8).transpose(0, 3, 1, 2), due)


def test_activations_are_uint8_weights_int8_and_biases_int32(bundle_folder: Path) -> None:
    model = onnx.load(bundle_folder / "stage2.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 20
    for conv in convs:
        x, weight, bias = (made_by[name] for name in conv.input)
        assert {node.op_type for node in (x, weight, bias)} == {"DequantizeLinear"}
        assert types[x.input[2]] == TensorProto.UINT8
        assert types[weight.input[0]] == types[weight.input[2]] == TensorProto.INT8
        assert types[bias.input[0]] == TensorProto.INT32
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert types[node.input[2]] == TensorProto.UINT8


def test_weights_biases_and_scales_are_those_of_the_function(function: IntegerFunction, bundle_folder: Path) -> None:
    model = onnx.load(bundle_folder / "stage2.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    convs = {node.output[0]: node for node in model.graph.node if node.op_type == "Conv"}
    for node in function.nodes:
        if isinstance(node, Conv):
            _, weight, bias = (made_by[name].input for name in convs[node.name].input)
            np.testing.assert_array_equal(stored[weight[0]], node.weight)
            np.testing.assert_array_equal(stored[weight[1]], node.weight_scale)
            np.testing.assert_array_equal(stored[bias[0]], node.bias)
            np.testing.assert_array_equal(stored[bias[1]], function.bias_scale(node))


def test_it_is_a_valid_model_of_float_features_and_outputs_that_onnxruntime_since_1_10_reads(
    bundle_folder: Path,
) -> None:
    model = onnx.load(bundle_folder / "stage2.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]

    def shape(value: onnx.ValueInfoProto) -> tuple[str, int, list[int]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [dimension.dim_value for dimension in tensor.shape.dim]

    assert [shape(x) for x in model.graph.input] == [("features", TensorProto.FLOAT, [1, 32, 64, 128])]
    assert [shape(y) for y in model.graph.output] == [
        ("y1", TensorProto.FLOAT, [1, 32, 64, 128]),
        ("y2", TensorProto.FLOAT, [1, 64, 32, 64]),
    ]


def _float_sigmoid(graph: converter._Graph, node: SiLU) -> None:
    """SiLU whose sigmoid is never quantised."""
    sigmoid = graph.operator("Sigmoid", [graph.read(node.input, f"{node.name}/sigmoid")], f"{node.name}/sigmoid")
    graph.write(node.name, graph.operator("Mul", [graph.read(node.input, node.name), sigmoid], node.name))


def test_an_operator_left_in_float_fails_the_conversion_and_writes_nothing(
    small_function: IntegerFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(converter.LOWER, SiLU, _float_sigmoid)
    with pytest.raises(CoverageError, match=r"onnx: .* under `.*`, where the contract has"):
        converter.convert(small_function, tmp_path / "stage2.onnx", SMALL)
    assert not (tmp_path / "stage2.onnx").exists()


def every_resize(codes: NDArray[np.int8]) -> NDArray[np.int8]:
    """ONNX Runtime's resize of codes `[1,C,H,W]`, as the converter writes it: a function of one node."""
    q = Quantization(np.float32(0.1), 3)
    node = Resize(name="resize", inputs=("x",))
    function = assemble("one", {"x": codes.shape}, {"y": "resize"}, [node], {"x": q, "resize": q})
    content = converter.build_codes(function).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ascontiguousarray(codes.view(np.uint8).transpose(0, 2, 3, 1)) ^ 0x80})
    return (y.transpose(0, 3, 1, 2) ^ 0x80).view(np.int8)


def test_the_resize_breaks_every_tie_upwards() -> None:
    """Noise of every code, whose 2x2 neighbourhoods reach each sixteenth and both signs."""
    codes = np.random.default_rng(0).integers(-128, 128, (1, 16, 64, 64)).astype(np.int8)
    codes[0, 0] = np.where(np.indices((64, 64)).sum(0) % 2, 127, -128)
    codes[0, 1], codes[0, 2] = -128, 127
    np.testing.assert_array_equal(every_resize(codes), resize.resize(codes))


def test_without_the_tie_breaking_scale_the_resize_would_be_another_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resize, "tie_breaking_scale", np.float32(1))
    codes = np.random.default_rng(0).integers(-128, 128, (1, 4, 32, 32)).astype(np.int8)
    wrong = every_resize(codes) != resize.resize(codes)
    assert 0.005 < wrong.mean() < 0.5


def test_uint8_zero_points_are_128_above(function: IntegerFunction, bundle_folder: Path) -> None:
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(bundle_folder / "stage2.onnx").graph.initializer
    }
    for name, q in function.quantization.items():
        if not name.endswith(".resize"):
            zero_point, scale = stored[f"{name}/codes/zero_point"], stored[f"{name}/codes/scale"]
            assert Quantization(scale[()], int(zero_point) - 128) == q
