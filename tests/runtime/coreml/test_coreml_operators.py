"""Each operator of the Core ML evaluator against torch or against its documentation worked out by hand.

Most programs here are built with coremltools, saved, and read back, so that the parameters' names, their
storage and the optional ones that are left out are coremltools' own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.mil import Function, Program, types
from numpy.typing import NDArray

from litehrnet_stage2.runtime.coreml.evaluate import evaluate
from litehrnet_stage2.runtime.coreml.mil import MilProgram
from litehrnet_stage2.runtime.coreml.operators import OPERATORS, cast, conv, quantize

logging.getLogger("coremltools").setLevel(logging.ERROR)
RNG = np.random.default_rng(0)


Case: TypeAlias = tuple[Callable[..., Any], tuple[NDArray[Any], ...]]
"""What to build, and the inputs to run it on."""


def run_all(
    folder: Path, cases: Sequence[Case], *, target: Any = ct.target.iOS17
) -> tuple[MilProgram, list[NDArray[Any]]]:
    """Save one program with an output for each case, no pass changing it, read it back and evaluate it."""
    inputs = {f"x{i}_{j}": x for i, (_, given) in enumerate(cases) for j, x in enumerate(given)}
    placeholders = {
        name: mb.placeholder(x.shape, types.numpy_type_to_builtin_type(x.dtype)) for name, x in inputs.items()
    }
    built = Program()
    with Function(placeholders, opset_version=target) as main:
        main.set_outputs(
            [build(*(main.inputs[f"x{i}_{j}"] for j in range(len(given)))) for i, (build, given) in enumerate(cases)]
        )
        built.add_function("main", main)
    path = folder / "program.mlpackage"
    ct.convert(built, minimum_deployment_target=target, pass_pipeline=ct.PassPipeline.EMPTY, skip_model_load=True).save(
        str(path)
    )
    program = MilProgram.load(path)
    outputs = evaluate(program, inputs)
    return program, [outputs[tensor.name] for tensor in program.outputs]


def run(
    folder: Path, build: Callable[..., Any], *inputs: NDArray[Any], target: Any = ct.target.iOS17
) -> tuple[MilProgram, NDArray[Any]]:
    """`run_all` for one case."""
    program, (output,) = run_all(folder, [(build, inputs)], target=target)
    return program, output


def floats(*shape: int, scale: float = 3.0) -> NDArray[np.float32]:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


X = floats(2, 3, 6, 8)
Y = floats(2, 3, 6, 8)
POSITIVE = np.abs(X) + np.float32(0.1)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.49], np.float32)
WIDE = np.array([-np.inf, -200.0, -90.0, -1.0, 0.0, 1.0, 90.0, 200.0, np.inf], np.float32)
TALL = floats(4, 6)

# operator, program, inputs, what torch gives for them
AGAINST_TORCH: list[tuple[str, Callable[..., Any], tuple[NDArray[Any], ...], Callable[..., torch.Tensor]]] = [
    ("abs", lambda x: mb.abs(x=x), (X,), torch.abs),
    ("add", lambda x, y: mb.add(x=x, y=y), (X, Y), torch.add),
    ("add", lambda x: mb.add(x=x, y=floats(3, 1, 1) * 0 + 2), (X,), lambda x: x + 2),
    ("ceil", lambda x: mb.ceil(x=x), (X,), torch.ceil),
    ("clip", lambda x: mb.clip(x=x, alpha=-1.0, beta=2.0), (X,), lambda x: x.clamp(-1, 2)),
    ("concat", lambda x, y: mb.concat(values=[x, y], axis=-3), (X, Y), lambda x, y: torch.cat([x, y], 1)),
    (
        "concat",
        lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True),
        (X, Y),
        lambda x, y: torch.stack([x, y], 2).reshape(2, 6, 6, 8),
    ),
    ("concat", lambda x: mb.concat(values=[x], axis=0), (X,), lambda x: x),
    ("expand_dims", lambda x: mb.expand_dims(x=x, axes=[0, -1]), (TALL,), lambda x: x[None, ..., None]),
    ("floor", lambda x: mb.floor(x=x), (X,), torch.floor),
    ("identity", lambda x: mb.identity(x=x), (X,), lambda x: x),
    ("inverse", lambda x: mb.inverse(x=x, epsilon=0.0), (POSITIVE,), torch.reciprocal),
    ("inverse", lambda x: mb.inverse(x=x), (POSITIVE,), lambda x: 1 / (x + 1e-4)),
    ("maximum", lambda x, y: mb.maximum(x=x, y=y), (X, Y), torch.maximum),
    ("minimum", lambda x, y: mb.minimum(x=x, y=y), (X, Y), torch.minimum),
    ("mul", lambda x, y: mb.mul(x=x, y=y), (X, Y), torch.mul),
    ("real_div", lambda x, y: mb.real_div(x=x, y=y), (X, POSITIVE), torch.div),
    ("reduce_mean", lambda x: mb.reduce_mean(x=x, axes=[2, -1]), (X,), lambda x: x.mean((2, 3))),
    (
        "reduce_mean",
        lambda x: mb.reduce_mean(x=x, axes=[1], keep_dims=True),
        (X,),
        lambda x: x.mean(1, keepdim=True),
    ),
    (
        "max_pool",
        lambda x: mb.max_pool(x=x, kernel_sizes=[3, 2], strides=[2, 2], pad_type="custom", pad=[1, 1, 0, 0]),
        (X,),
        lambda x: F.max_pool2d(x, (3, 2), 2, (1, 0)),
    ),
    ("reduce_sum", lambda x: mb.reduce_sum(x=x, axes=[2, 3], keep_dims=True), (X,), lambda x: x.sum((2, 3), True)),
    ("sigmoid_hard", lambda x: mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5), (X * 4,), F.hardsigmoid),
    ("relu", lambda x: mb.relu(x=x), (X,), torch.relu),
    ("relu6", lambda x: mb.relu6(x=x), (X * 4,), F.relu6),
    ("reshape", lambda x: mb.reshape(x=x, shape=[2, -1, 8]), (X,), lambda x: x.reshape(2, 18, 8)),
    ("reshape", lambda x: mb.reshape(x=x, shape=[6, -1, 0, 0]), (X,), lambda x: x.reshape(6, 1, 6, 8)),
    ("reshape", lambda x: mb.reshape(x=x, shape=[1, 0, -1, 0]), (TALL,), lambda x: x.reshape(1, 1, 4, 6)),
    ("round", lambda x: mb.round(x=x), (HALVES,), torch.round),
    ("sigmoid", lambda x: mb.sigmoid(x=x), (X,), torch.sigmoid),
    ("sigmoid", lambda x: mb.sigmoid(x=x), (WIDE,), torch.sigmoid),
    ("silu", lambda x: mb.silu(x=x), (X,), F.silu),
    ("silu", lambda x: mb.silu(x=x), (WIDE[1:],), F.silu),
    ("softmax", lambda x: mb.softmax(x=x, axis=1), (X * 50,), lambda x: torch.softmax(x, 1)),
    ("sqrt", lambda x: mb.sqrt(x=x), (POSITIVE,), torch.sqrt),
    ("squeeze", lambda x: mb.squeeze(x=x, axes=[1]), (X[:1, :1],), lambda x: x.squeeze(1)),
    ("squeeze", lambda x: mb.squeeze(x=x), (X[:1, :1],), torch.squeeze),
    ("sub", lambda x, y: mb.sub(x=x, y=y), (X, Y), torch.sub),
    ("tanh", lambda x: mb.tanh(x=x), (X,), torch.tanh),
    ("transpose", lambda x: mb.transpose(x=x, perm=[0, 2, -1, 1]), (X,), lambda x: x.permute(0, 2, 3, 1)),
    (
        "linear",
        lambda x: mb.linear(x=x, weight=TALL, bias=TALL[:, 0].copy()),
        (floats(2, 6),),
        lambda x: F.linear(x, torch.from_numpy(TALL), torch.from_numpy(TALL[:, 0].copy())),
    ),
    (
        "linear",
        lambda x: mb.linear(x=x, weight=TALL),
        (floats(2, 5, 6),),
        lambda x: F.linear(x, torch.from_numpy(TALL)),
    ),
    ("matmul", lambda x, y: mb.matmul(x=x, y=y), (X, floats(3, 8, 5)), torch.matmul),
    (
        "matmul",
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        (floats(8, 4), floats(5, 8)),
        lambda x, y: x.T @ y.T,
    ),
    (
        "upsample_bilinear",
        lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False),
        (X,),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
    ),
    (
        "upsample_bilinear",
        lambda x: mb.upsample_bilinear(x=x, scale_factor_height=3, scale_factor_width=2),
        (X,),
        lambda x: F.interpolate(x, size=(18, 16), mode="bilinear", align_corners=True),
    ),
    (
        "upsample_nearest_neighbor",
        lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
        (X,),
        lambda x: F.interpolate(x, size=(12, 24), mode="nearest"),
    ),
    (
        "resize_bilinear",
        lambda x: mb.resize_bilinear(x=x, target_size_height=9, target_size_width=5, sampling_mode="UNALIGN_CORNERS"),
        (X,),
        lambda x: F.interpolate(x, size=(9, 5), mode="bilinear", align_corners=False),
    ),
    (
        "resize_bilinear",
        lambda x: mb.resize_bilinear(
            x=x, target_size_height=9, target_size_width=11, sampling_mode="STRICT_ALIGN_CORNERS"
        ),
        (X,),
        lambda x: F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True),
    ),
    (
        "resize",
        lambda x: mb.resize(x=x, shape=[12, 0], resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"),
        (X,),
        lambda x: F.interpolate(x, size=(12, 8), mode="bilinear", align_corners=False),
    ),
]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[MilProgram, list[NDArray[Any]]]:
    """One program of all the cases above."""
    return run_all(tmp_path_factory.mktemp("torch"), [case[1:3] for case in AGAINST_TORCH])


@pytest.mark.parametrize("index", range(len(AGAINST_TORCH)), ids=[case[0] for case in AGAINST_TORCH])
def test_operator_agrees_with_torch(evaluated: tuple[MilProgram, list[NDArray[Any]]], index: int) -> None:
    program, outputs = evaluated
    operator, _, inputs, reference = AGAINST_TORCH[index]
    assert operator in program.operator_counts()
    expected = reference(*map(torch.from_numpy, inputs)).numpy()
    np.testing.assert_allclose(outputs[index], expected, rtol=3e-6, atol=3e-6)


# weight shape, and the parameters as coremltools and as torch have them
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "1x1": ((5, 4, 1, 1), {}, {}),
    "1x1 of stride 2": ((5, 4, 1, 1), {"strides": [2, 2]}, {"stride": 2}),
    "3x3": ((5, 4, 3, 3), {"pad_type": "custom", "pad": [1, 1, 1, 1]}, {"padding": 1}),
    "same": ((5, 4, 3, 5), {"pad_type": "same"}, {"padding": "same"}),
    "grouped": ((6, 2, 3, 3), {"groups": 2}, {"groups": 2}),
    "depthwise": (
        (4, 1, 3, 3),
        {"groups": 4, "strides": [2, 2], "pad_type": "custom", "pad": [1, 1, 1, 1]},
        {"groups": 4, "stride": 2, "padding": 1},
    ),
    "two filters for each channel": ((8, 1, 3, 3), {"groups": 4}, {"groups": 4}),
    "dilated, uneven": (
        (5, 4, 2, 3),
        {"dilations": [2, 1], "strides": [1, 2], "pad_type": "custom", "pad": [2, 2, 0, 0]},
        {"dilation": (2, 1), "stride": (1, 2), "padding": (2, 0)},
    ),
}


def test_conv_agrees_with_torch(tmp_path: Path) -> None:
    cases: list[Case] = []
    expected: list[NDArray[Any]] = []
    for shape, parameters, torch_parameters in CONVOLUTIONS.values():
        x, weight, bias = floats(2, 4, 9, 10), floats(*shape), floats(shape[0])
        for given in ({"weight": weight}, {"weight": weight, "bias": bias}):
            cases.append((functools.partial(_conv, given | parameters), (x,)))
            tensors = {name: torch.from_numpy(value) for name, value in given.items()}
            expected.append(F.conv2d(torch.from_numpy(x), **tensors, **torch_parameters).numpy())
    _, outputs = run_all(tmp_path, cases)
    for name, output, reference in zip((n for n in CONVOLUTIONS for _ in range(2)), outputs, expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-4, err_msg=name)


def _conv(parameters: dict[str, Any], x: Any) -> Any:
    return mb.conv(x=x, **parameters)


def test_conv_pads_each_side_by_its_own_count(tmp_path: Path) -> None:
    x, weight = floats(1, 2, 4, 5), floats(3, 2, 2, 2)
    _, output = run(tmp_path, lambda x: mb.conv(x=x, weight=weight, pad_type="custom", pad=[1, 0, 2, 3]), x)
    expected = F.conv2d(F.pad(torch.from_numpy(x), (2, 3, 1, 0)), torch.from_numpy(weight))
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3])
def test_conv_works_in_one_and_three_dimensions(rank: int) -> None:
    x, weight = floats(2, 4, *[6] * rank), floats(3, 4, *[3] * rank)
    expected = (F.conv1d, None, F.conv3d)[rank - 1](torch.from_numpy(x), torch.from_numpy(weight))
    np.testing.assert_allclose(conv(x, weight), expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_conv_of_integers_is_exact_up_to_2_to_the_24(groups: int) -> None:
    # 16 * 9 products of at most 255 * 127 reach 4.7 million.
    x = RNG.integers(-255, 256, (1, 16, 7, 9))
    weight = RNG.integers(-127, 128, (16, 16 // groups, 3, 3))
    bias = RNG.integers(-(2**20), 2**20, 16)
    exact = F.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1, groups=groups).numpy()
    output = conv(
        *(value.astype(np.float32) for value in (x, weight, bias)),
        pad_type="custom",
        pad=np.ones(4, np.int32),
        groups=groups,
    )
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, exact)


@pytest.mark.parametrize(("strides", "kernel"), [([2, 2], 3), ([1, 1], 2)])
def test_conv_refuses_same_padding_where_its_sides_are_ambiguous(strides: list[int], kernel: int) -> None:
    with pytest.raises(ValueError, match=r"does not say on which side"):
        conv(X, floats(4, 3, kernel, kernel), pad_type="same", strides=np.array(strides))


@pytest.mark.parametrize(
    ("dtype", "zero_point", "codes"),
    [
        # -2.5 -> -2 and 1.5 -> 2: half to even, and before the zero point is added.
        ("int8", None, [-128, -128, -2, -2, 0, 0, 2, 2, 127, 127]),
        ("int8", 5, [-128, -123, 3, 3, 5, 5, 7, 7, 127, 127]),
        ("uint8", None, [0, 0, 0, 0, 0, 0, 2, 2, 127, 255]),
        ("uint8", 128, [0, 0, 126, 126, 128, 128, 130, 130, 255, 255]),
    ],
)
@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_quantize_rounds_half_to_even_then_saturates(
    tmp_path: Path, dtype: str, zero_point: int | None, codes: list[int], precision: type
) -> None:
    x = (np.array([-1e4, -128, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 127, 1e4]) * 0.25).astype(precision)
    given = {} if zero_point is None else {"zero_point": np.dtype(dtype).type(zero_point)}
    _, output = run(
        tmp_path,
        lambda x: mb.cast(x=mb.quantize(input=x, scale=precision(0.25), output_dtype=dtype, **given), dtype="int32"),
        x,
    )
    assert output.tolist() == codes


def test_quantize_divides_by_the_scale_and_does_not_multiply_by_its_reciprocal() -> None:
    scale = np.float32(0.03)
    codes = np.arange(-127, 128, dtype=np.float32)
    x = (codes + np.float32(0.5)) * scale
    reciprocal = np.rint(x * (1 / scale))
    assert (np.rint(x / scale) != reciprocal).any()
    np.testing.assert_array_equal(quantize(x, np.asarray(scale), "int8"), np.rint(x / scale).clip(-128, 127))


def test_quantize_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match=r"not a number"):
        quantize(np.array([1, np.nan], np.float32), np.array(1, np.float32), "int8")


def test_quantize_and_dequantize_take_one_scale_for_each_channel(tmp_path: Path) -> None:
    x = np.array([[[1.0, 2.0], [10.0, 20.0]]], np.float32)  # [1, 2, 2]
    scale, zero = np.array([0.5, 4.0], np.float32), np.array([1, -3], np.int8)
    _, output = run(
        tmp_path,
        lambda x: mb.dequantize(
            input=mb.quantize(input=x, scale=scale, zero_point=zero, axis=-2, output_dtype="int8"),
            scale=scale,
            zero_point=zero,
            axis=1,
        ),
        x,
    )
    # Codes 2 + 1, 4 + 1 and, 2.5 and 5 rounded, 2 - 3, 5 - 3.
    assert output.tolist() == [[[1.0, 2.0], [8.0, 20.0]]]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("zero_point", [None, 0, 100])
def test_dequantize_does_not_wrap_around(tmp_path: Path, dtype: type, zero_point: int | None) -> None:
    limits = np.iinfo(dtype)
    x = np.array([limits.min, 0, limits.max], np.int32)
    given = {} if zero_point is None else {"zero_point": dtype(zero_point)}
    _, output = run(
        tmp_path,
        lambda x: mb.dequantize(input=mb.cast(x=x, dtype=np.dtype(dtype).name), scale=np.float32(0.5), **given),
        x,
    )
    assert output.tolist() == ((x - (zero_point or 0)) * 0.5).tolist()


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_affine_constant_is_scale_times_code_minus_zero_point(tmp_path: Path, dtype: type, scale_type: type) -> None:
    limits = np.iinfo(dtype)
    codes = np.array([[limits.min, limits.max, 0], [7, 8, 9]], dtype)
    scale, zero = np.array([0.5, 0.1], scale_type), np.array([3, 9], dtype)
    program, output = run(
        tmp_path,
        lambda x: mb.mul(
            x=x, y=mb.constexpr_affine_dequantize(quantized_data=codes, scale=scale, zero_point=zero, axis=0)
        ),
        np.ones((2, 3), scale_type),
    )
    assert "constexpr_affine_dequantize" in program.operator_counts()
    exact = (codes.astype(np.float64) - zero[:, None]) * scale.astype(np.float64)[:, None]
    np.testing.assert_array_equal(output, exact.astype(scale_type))


def test_affine_constant_takes_a_scalar_scale(tmp_path: Path) -> None:
    codes = np.arange(-6, 6, dtype=np.int8).reshape(2, 6)
    _, output = run(
        tmp_path,
        lambda x: mb.add(
            x=x,
            y=mb.constexpr_affine_dequantize(
                quantized_data=codes, scale=np.float32(0.25), zero_point=np.int8(-6), axis=1
            ),
        ),
        np.zeros((2, 6), np.float32),
    )
    np.testing.assert_array_equal(output, np.arange(12).reshape(2, 6) / 4)


@pytest.mark.parametrize(
    ("scale_shape", "offset"),
    [((4, 1), None), ((4, 1), True), ((2, 3), True), ((1, 1), True), ((4, 6), True)],
)
def test_blockwise_constant_has_a_scale_and_an_offset_for_each_block(
    tmp_path: Path, scale_shape: tuple[int, int], offset: bool | None
) -> None:
    codes = RNG.integers(-128, 128, (4, 6), np.int8)
    scale = RNG.uniform(0.01, 1, scale_shape).astype(np.float32)
    zero = RNG.integers(-128, 128, scale_shape, np.int8)
    given = {"offset": zero} if offset else {}
    program, output = run(
        tmp_path,
        lambda x: mb.mul(x=x, y=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale, **given)),
        np.ones((4, 6), np.float32),
        target=ct.target.iOS18,
    )
    assert "constexpr_blockwise_shift_scale" in program.operator_counts()
    for i, j in np.ndindex(4, 6):
        block = i * scale_shape[0] // 4, j * scale_shape[1] // 6
        shifted = np.float32(int(codes[i, j]) - (int(zero[block]) if offset else 0))
        assert output[i, j] == scale[block] * shifted


def test_upsample_has_half_pixel_centres_and_clamped_edges(tmp_path: Path) -> None:
    x = np.array([[[[0.0, 16.0], [32.0, 48.0]]]], np.float32)
    _, output = run(
        tmp_path,
        lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False),
        x,
    )
    assert output[0, 0].tolist() == [
        [0, 4, 12, 16],
        [8, 12, 20, 24],
        [24, 28, 36, 40],
        [32, 36, 44, 48],
    ]


def test_upsample_of_integers_is_exact_on_the_sixteenth_grid(tmp_path: Path) -> None:
    codes = RNG.integers(-255, 256, (1, 2, 5, 6))
    _, output = run(
        tmp_path,
        lambda x: mb.upsample_bilinear(x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=False),
        codes.astype(np.float32),
    )
    padded = np.pad(codes, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    for y, x in np.ndindex(10, 12):
        near = y // 2 + 1, x // 2 + 1
        far = near[0] + (1 if y % 2 else -1), near[1] + (1 if x % 2 else -1)
        sixteenths = (
            9 * padded[..., near[0], near[1]]
            + 3 * padded[..., far[0], near[1]]
            + 3 * padded[..., near[0], far[1]]
            + padded[..., far[0], far[1]]
        )
        assert (output[..., y, x] * 16 == sixteenths).all()


@pytest.mark.parametrize(
    ("mode", "to", "grid"),
    [
        # The documentation's own examples, for an input interval of [0, 1].
        ("UNALIGN_CORNERS", 5, [0, 0.1, 0.5, 0.9, 1]),
        ("STRICT_ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("ALIGN_CORNERS", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("DEFAULT", 5, [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", 6, [0, 0, 1 / 3, 2 / 3, 1, 1]),
        ("DEFAULT", 6, [0, 1 / 3, 2 / 3, 1, 1, 1]),
        ("OFFSET_CORNERS", 6, [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
        ("ALIGN_CORNERS", 1, [0.5]),
        ("STRICT_ALIGN_CORNERS", 1, [0]),
    ],
)
def test_resize_samples_where_the_documentation_says(mode: str, to: int, grid: list[float]) -> None:
    interval = np.array([[[0.0, 1.0]]], np.float32)
    output = OPERATORS["resize_bilinear"](interval, np.array(1), np.array(to), mode)
    np.testing.assert_allclose(output[0, 0], grid, atol=1e-6)


def test_nearest_upsampling_refuses_a_scale_without_a_documented_rule() -> None:
    with pytest.raises(ValueError, match=r"whole numbers"):
        OPERATORS["upsample_nearest_neighbor"](X, np.array(1.5), np.array(2.0))


def test_silu_of_minus_infinity_is_its_limit(tmp_path: Path) -> None:
    _, output = run(tmp_path, lambda x: mb.silu(x=x), np.array([-np.inf], np.float32))
    assert output.tolist() == [0.0]


def test_cast_cuts_towards_zero_and_rounds_to_float16(tmp_path: Path) -> None:
    x = np.array([-2.9, -0.5, 0.5, 2.9, 65519.0, 2049.0], np.float32)
    _, whole = run(tmp_path, lambda x: mb.cast(x=x, dtype="int32"), x)
    _, half = run(tmp_path, lambda x: mb.cast(x=x, dtype="fp16"), x)
    assert whole.tolist() == [-2, 0, 0, 2, 65519, 2049]
    assert (half.dtype, half[3:].tolist()) == (np.float16, [2.900390625, 65504.0, 2048.0])


@pytest.mark.parametrize("value", [128.0, -129.0, np.inf, np.nan])
def test_cast_refuses_what_an_integer_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError, match=r"int8 cannot hold"):
        cast(np.array([value], np.float32), "int8")


def test_every_operator_of_the_table_is_covered_here() -> None:
    elsewhere = {
        *("cast", "conv", "quantize", "dequantize"),
        *("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"),
    }
    assert {case[0] for case in AGAINST_TORCH} | elsewhere == set(OPERATORS)
