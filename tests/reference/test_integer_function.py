"""The integer function as data: its parameters in float32, and its file."""

from __future__ import annotations

import dataclasses
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from litehrnet_stage2.reference.golden import trace
from litehrnet_stage2.reference.integer_function import IntegerFunction, load, save
from litehrnet_stage2.reference.operators import Conv, Resize, SiLU
from litehrnet_stage2.reference.stage2 import Stage2


def test_a_file_brings_back_every_number_and_name(function: IntegerFunction, tmp_path: Path) -> None:
    save(function, tmp_path / "function.npz")
    back = load(tmp_path / "function.npz")
    assert (back.name, back.inputs, back.outputs) == (function.name, function.inputs, function.outputs)
    assert back.tensors == function.tensors
    assert all(type(q.scale) is np.float32 for q in back.quantization.values())
    for found, due in zip(back.nodes, function.nodes, strict=True):
        assert type(found) is type(due)
        for field in dataclasses.fields(due):
            a, b = getattr(found, field.name), getattr(due, field.name)
            if isinstance(b, np.ndarray):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)
            else:
                assert a == b


def test_equal_functions_give_equal_bytes_whenever_they_are_written(
    small_function: IntegerFunction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small_function, tmp_path / "one.npz")
    monkeypatch.setattr("time.time", lambda: 2e9)
    save(load(tmp_path / "one.npz"), tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_an_open_file_will_do_for_a_path(small_function: IntegerFunction, tmp_path: Path) -> None:
    save(small_function, tmp_path / "function.npz")
    assert load(io.BytesIO((tmp_path / "function.npz").read_bytes())).outputs == small_function.outputs


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all"])
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "function.npz").write_bytes(content)
    with pytest.raises(ValueError, match="does not hold an integer function"):
        load(tmp_path / "function.npz")


def test_an_archive_of_other_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "function.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold an integer function"):
        load(tmp_path / "function.npz")


def test_the_multiplier_is_rounded_to_float32_at_each_step(function: IntegerFunction) -> None:
    for node in function.nodes:
        if isinstance(node, Conv):
            product = function.quantization[node.input].scale * node.weight_scale
            assert product.dtype == np.float32
            due = [np.float32(float(p) / float(function.quantization[node.name].scale)) for p in product]
            np.testing.assert_array_equal(function.multiplier(node), np.array(due, np.float32))


def test_nodes_read_only_what_was_written_before_them(function: IntegerFunction) -> None:
    written = set(function.inputs)
    for node in function.nodes:
        assert written.issuperset(node.inputs)
        assert node.name not in written
        written.add(node.name)
    assert written == set(function.quantization)
    assert written.issuperset(function.outputs.values())


def test_the_projection_comes_before_the_resize_and_shares_its_quantisation(function: IntegerFunction) -> None:
    (resize,) = (node for node in function.nodes if isinstance(node, Resize))
    (project,) = (node for node in function.nodes if node.name == resize.input)
    assert isinstance(project, Conv)
    assert project.weight.shape == (32, 64, 1, 1)
    assert function.quantization[resize.name] == function.quantization[project.name]


def test_every_batchnorm_was_folded_into_a_bias(function: IntegerFunction) -> None:
    """A convolution has a bias where SiLU follows; the two depthwise strides and the projections have none."""
    for node in function.nodes:
        if isinstance(node, Conv):
            followed = any(isinstance(reader, SiLU) for reader in function.consumers(node.name))
            assert node.bias.any() == followed, node.name


def test_the_commuted_order_costs_321519616_multiply_adds(function: IntegerFunction) -> None:
    tensors = trace(function, np.zeros((1, 32, 64, 128), np.int8))
    convs = [node for node in function.nodes if isinstance(node, Conv)]
    assert sum(tensors[node.name].size * node.weight[0].size for node in convs) == 321_519_616


def test_every_parameter_of_the_float_network_is_in_it_once(function: IntegerFunction) -> None:
    weights = sum(node.weight.size for node in function.nodes if isinstance(node, Conv))
    float_weights = sum(p.numel() for p in Stage2().parameters() if p.ndim == 4)
    assert weights == float_weights


@pytest.mark.parametrize(
    "module", ["reference.golden", "reference.integer_function", "reference.runtime_rules", "runtime"]
)
def test_importing_what_a_device_runs_needs_no_torch(
    module: str, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = python(f"import sys; sys.modules['torch'] = None; import litehrnet_stage2.{module}")
    assert done.returncode == 0, done.stderr
