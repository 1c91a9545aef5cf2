"""orthogonium's layers (Thibaut Boissin, MIT licence), as of version 0.0.4.

Most of its kernels are divided by a power iteration that goes on with every reading, in eval mode
too. ``lipschitz_bound`` refuses those; ``onelip.export`` reads them once.
"""

import copy
import math
from typing import Any

import torch
from orthogonium import layers as ortho
from orthogonium.layers import residual
from orthogonium.layers.conv import AOC, AOL, SLL
from orthogonium.layers.conv.adaptiveSOC import fast_skew_ortho_conv, soc_x_rko_conv
from orthogonium.layers.custom_activations import SoftHuber
from torch import Tensor, nn

from onelip.bounds.rounding import UNDERFLOW, exact, frobenius
from onelip.bounds.slopes import HOMOGENEOUS, slopes
from onelip.bounds.spectral import largest_norm
from onelip.errors import UnboundedModuleError
from onelip.export import Converter, export, fixed
from onelip.foreign.adjoint_step import AdjointStep
from onelip.foreign.checked import (
    UNCHECKED,
    Centering,
    HalvesHouseHolder,
    MeanSquareResidual,
    WeightedResidual,
    export_first,
    normalized,
)
from onelip.foreign.plain import bound_of, plain_conv, plain_conv_transpose, plain_linear
from onelip.layers.constrained import fill
from onelip.layers.gradient_step import GradientStep, gradient_step_bound
from onelip.layers.normalize import Normalize
from onelip.lipschitz import Rule, lipschitz_bound


def _isometry(_: Any) -> float:
    return 1.0


def _max_min(module: Any) -> float:
    if module.axis < 1:
        raise UnboundedModuleError(f"MaxMin along axis={module.axis} may mix the batch: axis=1")
    return 1.0


def _soft_huber(module: Any) -> float:
    """The slope is ``z / sqrt(delta^2 + z^2)``."""
    if not 0 < abs(module.delta) < math.inf:
        raise UnboundedModuleError(f"SoftHuber with delta={module.delta} is not a number")
    return 1.0


def _concat_residual(module: Any) -> Tensor:
    return lipschitz_bound(module.fn).clamp(min=1)


def _export_additive(module: Any) -> WeightedResidual:
    alpha = torch.sigmoid(module.alpha)
    return WeightedResidual(export(module.fn), alpha, 1 - alpha, torch.ones_like(alpha))


def _export_prescaled(module: Any) -> WeightedResidual:
    share = 1 / (1 + module.alpha.abs())
    return WeightedResidual(export(module.fn), share, share, module.alpha)


def _export_house_holder(module: Any) -> HalvesHouseHolder:
    if module.axis != 1:
        raise UnboundedModuleError(
            f"HouseHolder has an angle per channel and folds axis {module.axis}: axis=1"
        )
    return HalvesHouseHolder(module.theta, scale=1 / math.sqrt(2))


def _export_batch_centering(module: Any) -> Normalize:
    bias = module.bias.flatten()
    return normalized(module.running_mean.flatten() - bias, torch.ones_like(bias))


def _block(module: Any) -> AdjointStep:
    """``x - 2 K^T activation(K x + b)``."""
    return AdjointStep(
        module.kernel,
        module.bias.flatten(),
        copy.deepcopy(module.activation),
        step=2.0,
        padding=module.padding,
        groups=module.groups,
    )


def _export_orthogonal_block(module: Any) -> AdjointStep:
    """The same, without any padding: what the arguments ask for is not what ``forward`` does."""
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


def _export_strided_block(module: Any) -> nn.Sequential:
    """The convolutions that ``forward`` fuses, one by one around a gradient step.

    With all its zeros padded in front of the first, a fused kernel does the same as its factors.
    Both branches must then read the same pixels, and the inner kernel no more than there are.

    Raises:
        UnboundedModuleError: the branches are shifted against each other, or cropped.
    """
    module, stride = fixed(module), module.stride
    reach = module.kernel.shape[-1] + stride - 1
    margin = module.padding - (stride - 1)
    aligned = reach == 2 * module.padding + 1 and module.skip_kernel_size // 2 == stride - 1
    if margin < 0 or not aligned:
        raise UnboundedModuleError(
            f"SLLxAOCLipschitzResBlock with kernel_size={reach}, stride={stride} shifts or crops a "
            "branch: odd kernels of at least 2 stride - 1, strides up to 4"
        )
    module.padding = margin
    before = _conv(module.pre_conv.weight, 1, stride - 1, module.groups)
    after = _conv(module.post_conv.weight, stride, 0, module.groups)
    return nn.Sequential(before, _block(module), after)


def _conv(weight: Tensor, stride: int, padding: int, groups: int) -> nn.Conv2d:
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


def _dense_block(module: Any) -> Tensor:
    """``x - 2 W^T T activation(W x + b)``: a step of length 1 with ``(2 T)^{1/2} W``."""
    matrix = (2 * exact(module.compute_t())).sqrt()[:, None] * exact(module.weight)
    norm = largest_norm(matrix[None], frobenius(matrix) * 2**-50 + UNDERFLOW)
    return gradient_step_bound(torch.ones(()), norm, slopes(module.activation))


def _export_dense_block(module: Any) -> GradientStep:
    if type(module.activation) not in HOMOGENEOUS:
        raise UnboundedModuleError(f"{module.activation} does not scale: SDPBasedLipschitzDense")
    scale = (2 * exact(module.compute_t())).sqrt()
    return GradientStep(
        (scale[:, None] * exact(module.weight)).to(module.weight.dtype),
        (scale * exact(module.bias).flatten()).to(module.bias.dtype),
        copy.deepcopy(module.activation),
        None,
    )


_CONVOLUTIONS = (
    AOC.RKOConv2d,
    AOC.FastBlockConv2d,
    AOC.BcopRkoConv2d,
    AOL.AOLConv2D,
    fast_skew_ortho_conv.FastSOC,
    soc_x_rko_conv.SOCRkoConv2d,
)
_TRANSPOSED = (
    AOC.RkoConvTranspose2d,
    AOC.FastBlockConvTranspose2D,
    AOC.BcopRkoConvTranspose2d,
    AOL.AOLConvTranspose2D,
    fast_skew_ortho_conv.SOCTranspose,
    soc_x_rko_conv.SOCRkoConvTranspose2d,
)
_LINEAR = (ortho.OrthoLinear, ortho.UnitNormLinear)
_UNCHECKED = (
    ortho.HouseHolder,
    ortho.BatchCentering2D,
    ortho.LayerCentering2D,
    residual.L2NormResidual,
    residual.AdditiveResidual,
    residual.PrescaledAdditiveResidual,
)
_BLOCKS = (SLL.AOCLipschitzResBlock, SLL.SLLxAOCLipschitzResBlock)

RULES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys(_CONVOLUTIONS, bound_of(plain_conv)),
    **dict.fromkeys(_TRANSPOSED, bound_of(plain_conv_transpose)),
    **dict.fromkeys(_LINEAR, bound_of(plain_linear)),
    **dict.fromkeys(_UNCHECKED, export_first(UNCHECKED)),
    **dict.fromkeys(_BLOCKS, export_first("computes its kernels anew with every reading")),
    ortho.Abs: _isometry,
    ortho.ChannelShuffle: _isometry,
    ortho.MaxMin: _max_min,
    SoftHuber: _soft_huber,
    residual.ConcatResidual: _concat_residual,
    SLL.SDPBasedLipschitzResBlock: bound_of(_block),
    SLL.SDPBasedLipschitzDense: _dense_block,
}

EXPORTS: dict[type[nn.Module], Converter] = {
    **dict.fromkeys(_CONVOLUTIONS, lambda module: plain_conv(fixed(module))),
    **dict.fromkeys(_TRANSPOSED, lambda module: plain_conv_transpose(fixed(module))),
    **dict.fromkeys(_LINEAR, lambda module: plain_linear(fixed(module))),
    ortho.HouseHolder: _export_house_holder,
    ortho.BatchCentering2D: _export_batch_centering,
    ortho.LayerCentering2D: lambda module: Centering((-2, -1), module.bias.flatten()),
    residual.ConcatResidual: lambda module: residual.ConcatResidual(export(module.fn)),
    residual.L2NormResidual: lambda module: MeanSquareResidual(export(module.fn), eps=module.eps),
    residual.AdditiveResidual: _export_additive,
    residual.PrescaledAdditiveResidual: _export_prescaled,
    SLL.SDPBasedLipschitzResBlock: lambda module: _block(fixed(module)),
    SLL.SDPBasedLipschitzDense: _export_dense_block,
    SLL.AOCLipschitzResBlock: _export_orthogonal_block,
    SLL.SLLxAOCLipschitzResBlock: _export_strided_block,
}
