"""Private names of torch 2.13."""

from __future__ import annotations

from typing import Any

import torch

PRIVATE = {
    "torch": ("_fake_quantize_learnable_per_tensor_affine",),
    "torch.Tensor": ("_version",),
    "torch.nn.modules.batchnorm": ("_BatchNorm",),
    "torch.ao.quantization.fx": ("_decomposed",),
}

AnyBatchNorm = torch.nn.modules.batchnorm._BatchNorm
"""The base of every BatchNorm."""

fake_quantize_learnable: Any = torch._fake_quantize_learnable_per_tensor_affine
"""`(x, scale, zero_point, quant_min, quant_max, grad_factor)`: fake quantisation whose scale learns."""


def quantized_decomposed() -> Any:
    """The operators in which exporters read quantise and dequantise; importing what registers them takes a second."""
    import torch.ao.quantization.fx._decomposed

    return torch.ops.quantized_decomposed


def changes(tensor: torch.Tensor) -> int:
    """How often a tensor was changed in place."""
    return tensor._version
