"""The `.tflite`: one XNNPACK delegate with everything in it in int8, the same bytes each time, the golden codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from litehrnet_stage2.converters import litert_lowering, tflite_file, to_litert, to_litert_codes
from litehrnet_stage2.converters.coverage import CoverageError
from litehrnet_stage2.converters.targets import Deployment
from litehrnet_stage2.reference import golden
from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.freeze import freeze
from litehrnet_stage2.reference.integer_function import IntegerFunction, Quantization, QuantizedTensor
from litehrnet_stage2.reference.lowering import LoweringError
from litehrnet_stage2.reference.operators import Conv, Resize
from litehrnet_stage2.reference.qat import QATStage2
from litehrnet_stage2.reference.stage2 import Stage2

BUILDERS = {"codes": to_litert.build_codes, "float": to_litert.build}


def codes_of(content: bytes, function: IntegerFunction, given: dict[str, NDArray[np.int8]]) -> dict[str, NDArray]:
    """What the interpreter makes of one image's codes, given and taken as the file has its border."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for inp in interpreter.get_input_details():
        codes = given[inp["name"]].transpose(0, 2, 3, 1)
        floats = function.quantization[inp["name"]].dequantize(codes)
        interpreter.set_tensor(inp["index"], codes if inp["dtype"] is np.int8 else floats)
    interpreter.invoke()
    found = {}
    for out in interpreter.get_output_details():
        y = interpreter.get_tensor(out["index"]).transpose(0, 3, 1, 2)
        q = function.output_quantization[out["name"]]
        found[out["name"]] = y if out["dtype"] is np.int8 else q.quantize(y)
    return found


def check(function: IntegerFunction) -> None:
    """Noise of every code gives the golden codes at both borders."""
    rng = np.random.default_rng(5)
    shapes = {name: function.tensors[name].shape for name in function.inputs}
    given = {name: rng.integers(-128, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    due = golden.evaluate(function, *given.values())
    for build in BUILDERS.values():
        found = codes_of(build(function), function, given)
        assert {name: int(np.count_nonzero(found[name] != due[name])) for name in due} == dict.fromkeys(due, 0)


def test_coverage_counts_every_operator_of_the_specification_in_int8(function: IntegerFunction, tmp_path: Path) -> None:
    int8 = {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 6, "LOGISTIC": 16, "MUL": 16, "ADD": 6, "RESIZE_BILINEAR": 1}
    floats = to_litert.convert(function, tmp_path / "stage2.tflite", Deployment())
    codes = to_litert_codes.convert(function, tmp_path / "stage2-codes.tflite", Deployment())
    for coverage in (floats, codes):
        assert (coverage.int8, coverage.floating, coverage.partitions) == (int8, {}, 1)
    assert floats.boundary == {"QUANTIZE": 1, "DEQUANTIZE": 2}
    assert codes.boundary == {}


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_equal_functions_give_equal_bytes(build: Callable[..., bytes], small_function: IntegerFunction) -> None:
    again = dataclasses.replace(small_function, tensors=dict(small_function.tensors))
    assert build(small_function) == build(again)


@pytest.mark.parametrize(
    ("in_channels", "num_channels", "num_blocks", "size"),
    [
        (32, (32, 64), (2, 2), (2, 2)),  # a map of one cell below
        (32, (32, 64), (0, 0), (6, 10)),
        (3, (5, 7), (1, 1), (6, 10)),  # no multiple of 8
        (1, (1, 9), (1, 0), (2, 2)),
        (13, (17, 33), (0, 2), (10, 6)),
    ],
)
def test_any_width_and_size_gives_the_golden_codes(
    trained: Callable[[Stage2Config], Stage2],
    in_channels: int,
    num_channels: tuple[int, int],
    num_blocks: tuple[int, int],
    size: tuple[int, int],
) -> None:
    config = Stage2Config(in_channels=in_channels, num_channels=num_channels, num_blocks=num_blocks)
    features = torch.randn(2, in_channels, *size, generator=torch.Generator().manual_seed(3))
    check(freeze(QATStage2.from_float(trained(config)).calibrate(features))[0])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"padding": (1, 1, 1, 1)},
        {"padding": (0, 2, 1, 0)},
        {"stride": (2, 2), "padding": (1, 1, 1, 1)},
        {"stride": (1, 3), "padding": (0, 1, 0, 1)},
        {"dilation": (2, 1), "padding": (2, 1, 2, 1)},
        {"groups": 2},
        {"groups": 6, "padding": (1, 1, 1, 1)},
    ],
    ids=str,
)
def test_any_convolution_and_resize_gives_the_golden_codes(change: dict[str, object]) -> None:
    rng = np.random.default_rng(4)
    groups = int(change.get("groups", 1))  # type: ignore[call-overload]
    conv = Conv(
        name="conv",
        inputs=("x",),
        weight=rng.integers(-127, 128, (6, 6 // groups, 3, 3)).astype(np.int8),
        weight_scale=rng.uniform(0.001, 0.01, 6).astype(np.float32),
        bias=rng.integers(-3000, 3000, 6).astype(np.int32),
        **change,  # type: ignore[arg-type]
    )
    resizes = [Resize(name=f"up{factor}", inputs=("conv",), factor=factor) for factor in (2, 4, 8)]
    shape = conv.shape((1, 6, 11, 14))
    out = Quantization(np.float32(0.3), -7)
    check(
        IntegerFunction(
            name="any",
            inputs=("x",),
            outputs={"y": "conv", "again": "conv", "given": "x", **{node.name: node.name for node in resizes}},
            tensors={
                "x": QuantizedTensor(shape=(1, 6, 11, 14), quantization=Quantization(np.float32(0.05), 3)),
                "conv": QuantizedTensor(shape=shape, quantization=out),
                **{node.name: QuantizedTensor(shape=node.shape(shape), quantization=out) for node in resizes},
            },
            nodes=(conv, *resizes),
        )
    )


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_every_constant_lies_at_a_multiple_of_16_bytes(
    build: Callable[..., bytes], small_function: IntegerFunction
) -> None:
    content = build(small_function)
    start = np.frombuffer(content, np.uint8).ctypes.data
    model = schema.Model.GetRootAs(content)
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    places = [buffer.DataAsNumpy().ctypes.data - start for buffer in buffers if buffer.DataLength()]
    assert len(places) == len(buffers) - 1
    assert [place % 16 for place in places] == [0] * len(places)


@pytest.mark.parametrize(("border", "dtype"), [("codes", np.int8), ("float", np.float32)])
def test_the_border_and_the_signature_have_the_functions_names(
    border: str, dtype: type, small_function: IntegerFunction
) -> None:
    interpreter = Interpreter(model_content=BUILDERS[border](small_function))
    assert interpreter.get_signature_list() == {
        tflite_file.SIGNATURE: {"inputs": ["features"], "outputs": ["y1", "y2"]}
    }
    details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [(tensor["name"], tensor["dtype"], tensor["shape"].tolist()) for tensor in details] == [
        ("features", dtype, [1, 16, 24, 4]),
        ("y1", dtype, [1, 16, 24, 4]),
        ("y2", dtype, [1, 8, 12, 8]),
    ]


def test_weights_biases_and_scales_are_those_of_the_function(function: IntegerFunction) -> None:
    interpreter = Interpreter(model_content=to_litert.build_codes(function))
    interpreter.allocate_tensors()
    stored = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    for node in function.nodes:
        if isinstance(node, Conv):
            weight, bias = stored[f"{node.name}/weight"], stored[f"{node.name}/bias"]
            order = (3, 0, 1, 2) if node.depthwise else (0, 3, 1, 2)
            np.testing.assert_array_equal(interpreter.get_tensor(weight["index"]).transpose(order), node.weight)
            np.testing.assert_array_equal(weight["quantization_parameters"]["scales"], node.weight_scale)
            np.testing.assert_array_equal(interpreter.get_tensor(bias["index"]), node.bias)
            scales = function.bias_scale(node)
            np.testing.assert_array_equal(bias["quantization_parameters"]["scales"], scales)


def test_a_kind_without_an_exact_form_is_refused_by_name(
    small_function: IntegerFunction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(litert_lowering, "LOWER", {Conv: litert_lowering.LOWER[Conv]})
    with pytest.raises(LoweringError, match=r"LiteRT has no exact form of Add \(`.*`\), Resize \(`.*`\), SiLU \(`"):
        to_litert.convert(small_function, tmp_path / "stage2.tflite", Deployment())
    assert not (tmp_path / "stage2.tflite").exists()


def _float_resize(graph: litert_lowering.Graph, node: Resize) -> None:
    """The resize in float, between a dequantise and a quantise of its own."""
    file, (count, height, width, channels) = graph.file, graph.shape(node.name)
    before = file.tensor("before", (count, height // 2, width // 2, channels), "float32")
    after = file.tensor("after", (count, height, width, channels), "float32")
    file.operator("DEQUANTIZE", [graph.codes[node.input]], before, schema.DequantizeOptionsT())
    size = file.constant("size", np.array((height, width), np.int32))
    file.operator("RESIZE_BILINEAR", [before, size], after, schema.ResizeBilinearOptionsT(halfPixelCenters=True))
    file.operator("QUANTIZE", [after], graph.write(node.name), schema.QuantizeOptionsT())


def test_an_operator_left_in_float_fails_the_conversion_and_writes_nothing(
    small_function: IntegerFunction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(litert_lowering, "LOWER", {**litert_lowering.LOWER, Resize: _float_resize})
    with pytest.raises(CoverageError, match="litert: 0 RESIZE_BILINEAR under `int8`, where the contract has 1"):
        to_litert.convert(small_function, tmp_path / "stage2.tflite", Deployment())
    assert not (tmp_path / "stage2.tflite").exists()


def _nearest(graph: litert_lowering.Graph, node: Resize) -> None:
    """An operator that XNNPACK does not take."""
    size = graph.file.constant("size", np.array(graph.shape(node.name)[1:3], np.int32))
    kind, options = "RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT()
    graph.file.operator(kind, [graph.codes[node.input], size], graph.write(node.name), options)


def test_an_operator_outside_of_the_delegate_fails_the_conversion_and_writes_nothing(
    small_function: IntegerFunction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(tflite_file.VERSIONS, "RESIZE_NEAREST_NEIGHBOR", 2)
    monkeypatch.setattr(litert_lowering, "LOWER", {**litert_lowering.LOWER, Resize: _nearest})
    with pytest.raises(CoverageError, match="XNNPACK"):
        to_litert.convert(small_function, tmp_path / "stage2.tflite", Deployment())
    assert not (tmp_path / "stage2.tflite").exists()


def test_without_xnnpack_the_same_file_is_another_function(function: IntegerFunction) -> None:
    """Why a file is opened with its delegate or not at all."""
    codes = np.random.default_rng(6).integers(-128, 128, (1, 32, 64, 128)).astype(np.int8)
    due = golden.evaluate(function, codes)
    interpreter = Interpreter(
        model_content=to_litert.build_codes(function),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes.transpose(0, 2, 3, 1))
    interpreter.invoke()
    for out in interpreter.get_output_details():
        found = interpreter.get_tensor(out["index"]).transpose(0, 3, 1, 2)
        assert (found != due[out["name"]]).mean() > 0.01
