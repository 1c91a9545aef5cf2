"""Residual blocks of orthogonium: gradient steps with a convolution or a matrix."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onelip._export import fixed
from onelip.activations import is_homogeneous, slopes
from onelip.errors import UnboundedModuleError
from onelip.foreign.adjoint_step import AdjointStep
from onelip.layers.constrained import fill
from onelip.layers.gradient_step import GradientStep, gradient_step_bound
from onelip.norms.rounding import UNDERFLOW, exact, frobenius
from onelip.norms.spectral import largest_norm


def block(module: Any) -> AdjointStep:
    """Return ``x - 2 K^T activation(K x + b)`` with the block's kernel."""
    return AdjointStep(
        module.kernel,
        module.bias.flatten(),
        copy.deepcopy(module.activation),
        step=2.0,
        padding=module.padding,
        groups=module.groups,
    )


def plain_orthogonal_block(module: Any) -> AdjointStep:
    """Block without padding: its ``forward`` ignores what the arguments ask for."""
    if module.padding_mode != "zeros" and module.padding:
        raise UnboundedModuleError("AOCLipschitzResBlock wraps pixels: its maps are no adjoints")
    module = fixed(module)
    return AdjointStep(
        module.in_conv.weight,
        module.in_conv.bias,
        module.activation,
        step=2.0,
        padding=0,
        groups=module.groups,
    )


def plain_strided_block(module: Any) -> nn.Sequential:
    """Return the convolutions that ``forward`` fuses, one by one around a gradient step.

    With all its zeros padded before the first, a fused kernel does the same as its factors. Both
    branches must then read the same pixels, and the inner kernel must stay within the image.

    Raises:
        UnboundedModuleError: the branches are shifted against each other, or cropped.
    """
    module = copy.deepcopy(module).eval()
    before = module.pre_conv.weight
    with parametrize.cached():  # as in ``forward``: it holds up the power iteration
        after = module.post_conv.weight
    stride = module.stride
    reach = module.kernel.shape[-1] + stride - 1
    margin = module.padding - (stride - 1)
    aligned = reach == 2 * module.padding + 1 and module.skip_kernel_size // 2 == stride - 1
    if margin < 0 or not aligned:
        raise UnboundedModuleError(
            f"SLLxAOCLipschitzResBlock with kernel_size={reach}, stride={stride} shifts or crops a "
            "branch: odd kernels of at least 2 stride - 1, strides up to 4"
        )
    module.padding = margin
    return nn.Sequential(
        _conv(before, 1, stride - 1, module.groups),
        block(module),
        _conv(after, stride, 0, module.groups),
    )


def _conv(weight: Tensor, stride: int, padding: int, groups: int) -> nn.Conv2d:
    """Return a plain convolution with this weight, without bias."""
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=stride,
        padding=padding,
        groups=groups,
        device="meta",
    )
    fill(conv, weight.detach(), None)
    return conv


def dense_block_bound(module: Any) -> Tensor:
    """Proved bound of ``x - 2 W^T T activation(W x + b)``: a unit step with ``(2 T)^{1/2} W``."""
    matrix = (2 * exact(module.compute_t())).sqrt()[:, None] * exact(module.weight)
    # each entry of the float64 product is off by a few roundings: 2^-50 of the Frobenius norm
    norm = largest_norm(matrix[None], frobenius(matrix) * 2**-50 + UNDERFLOW)
    return gradient_step_bound(torch.ones(()), norm, slopes(module.activation))


def plain_dense_block(module: Any) -> GradientStep:
    """Return two linear layers; the root of ``2 T`` passes a positively homogeneous activation.

    Raises:
        UnboundedModuleError: the activation is not positively homogeneous.
    """
    if not is_homogeneous(module.activation):
        raise UnboundedModuleError(f"{module.activation} does not scale: SDPBasedLipschitzDense")
    scale = (2 * exact(module.compute_t())).sqrt()
    return GradientStep(
        (scale[:, None] * exact(module.weight)).to(module.weight.dtype),
        (scale * exact(module.bias).flatten()).to(module.bias.dtype),
        copy.deepcopy(module.activation),
        None,
    )
