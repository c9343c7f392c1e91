"""The float network against its specification."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litehrnet_stage2.reference.config import Stage2Config
from litehrnet_stage2.reference.stage2 import Stage2, UpProject, strided_depthwise


def multiply_adds(model: nn.Module, features: Tensor) -> int:
    """Of every convolution, counted as it runs."""
    total = 0

    def count(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model(features)
    for hook in hooks:
        hook.remove()
    return total


def test_it_has_100544_parameters() -> None:
    assert sum(parameter.numel() for parameter in Stage2().parameters()) == 100_544


def test_it_costs_334102528_multiply_adds_at_batch_1() -> None:
    assert multiply_adds(Stage2(), torch.zeros(1, 32, 64, 128)) == 334_102_528


def test_output_shapes_are_as_specified() -> None:
    y1, y2 = Stage2().eval()(torch.zeros(1, 32, 64, 128))
    assert (y1.shape, y2.shape) == ((1, 32, 64, 128), (1, 64, 32, 64))


@pytest.mark.parametrize(
    "config",
    [
        Stage2Config(in_channels=3, num_channels=(5, 7)),
        Stage2Config(in_channels=4, num_channels=(8, 4), num_blocks=(0, 0)),
        Stage2Config(in_channels=4, num_channels=(4, 4), num_blocks=(3, 0), expansion=1),
        Stage2Config(in_channels=1, num_channels=(1, 1), num_blocks=(0, 1), expansion=5),
    ],
)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 2, 2), (3, 6, 10), (2, 16, 4)])
def test_any_batch_even_size_and_configuration_will_do(
    config: Stage2Config, batch: int, height: int, width: int
) -> None:
    y1, y2 = Stage2(config).eval()(torch.randn(batch, config.in_channels, height, width))
    assert y1.shape == (batch, config.num_channels[0], height, width)
    assert y2.shape == (batch, config.num_channels[1], height // 2, width // 2)


def test_images_of_a_batch_do_not_mix(trained: Callable[[Stage2Config], Stage2]) -> None:
    model = trained(Stage2Config(in_channels=4, num_channels=(4, 8)))
    x = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        for batch, alone in zip(model(x), model(x[1:2]), strict=True):
            torch.testing.assert_close(batch[1:2], alone)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 32, 64), "rank 4"), ((1, 3, 64, 128), "32 channels"), ((1, 32, 64, 65), "even")]
)
def test_features_of_a_wrong_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage2()(torch.zeros(shape))


def test_the_block_is_expand_depthwise_project_each_with_batchnorm_and_silu_and_a_residual(
    trained: Callable[[Stage2Config], Stage2],
) -> None:
    block = trained(Stage2Config(in_channels=4, num_channels=(4, 8))).branches[0][0]
    x = torch.randn(2, 4, 6, 6)

    def unit(x: Tensor, name: str, **options: int) -> Tensor:
        conv, bn = block.get_submodule(name).conv, block.get_submodule(name).bn
        y = F.conv2d(x, conv.weight, None, **options)
        y = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=1e-5)
        return y * torch.sigmoid(y)

    with torch.no_grad():
        y = unit(unit(unit(x, "expand"), "depthwise", padding=1, groups=8), "project")
        torch.testing.assert_close(block(x), x + y)


def test_both_inputs_of_the_fusion_are_the_branches_before_fusion(
    trained: Callable[[Stage2Config], Stage2],
) -> None:
    model = trained(Stage2Config(in_channels=4, num_channels=(4, 8), num_blocks=(0, 0)))
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        x1, x2 = (model.transition[name](x) for name in ("b1_keep", "b2_down"))
        up = F.conv2d(
            F.interpolate(x2, scale_factor=2, mode="bilinear", align_corners=False),
            model.fuse_layers[0][1].project.weight,
        )
        y1, y2 = model(x)
        torch.testing.assert_close(y1, model.smooth[0](x1 + up))
        torch.testing.assert_close(y2, model.smooth[1](x2 + model.fuse_layers[1][0](x1)))


def test_projecting_before_the_resize_is_the_literal_order_to_1e5() -> None:
    torch.manual_seed(0)
    up = UpProject(64, 32)
    x = torch.randn(2, 64, 32, 64)
    with torch.no_grad():
        commuted = F.interpolate(up.project(x), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(commuted, up(x), atol=1e-5, rtol=0)


def grating_energy(conv: nn.Conv2d, cycles_per_px: float) -> float:
    """Mean square of what a horizontal cosine grating leaves, per unit of its own."""
    x = torch.cos(2 * math.pi * cycles_per_px * torch.arange(256.0)).expand(1, conv.in_channels, 32, 256)
    with torch.no_grad():
        return float(conv(x)[..., 1:-1, 1:-1].square().mean() / x.square().mean())


def test_binomial_start_lets_a_hundredth_of_the_aliases_of_a_random_start_through() -> None:
    """0.45 cycles/px is above what stride 2 can carry (0.25): all that is left of it is an alias."""
    torch.manual_seed(0)

    def aliased(conv: nn.Conv2d) -> float:
        return grating_energy(conv, 0.45) / grating_energy(conv, 0.05)

    low_pass = aliased(strided_depthwise(32, antialias=True))
    random = aliased(strided_depthwise(32, antialias=False))
    assert low_pass < 0.001
    assert random > 100 * low_pass


def test_every_strided_filter_of_the_network_starts_as_the_low_pass_unless_told_otherwise() -> None:
    binomial = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def filters(config: Stage2Config) -> list[Tensor]:
        return [m.weight for m in Stage2(config).modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]

    assert [torch.equal(w, binomial.expand_as(w)) for w in filters(Stage2Config())] == [True, True]
    assert [torch.equal(w, binomial.expand_as(w)) for w in filters(Stage2Config(antialias=False))] == [False] * 2
