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

from onelip._export import Converter, export, fixed
from onelip.errors import UnboundedModuleError
from onelip.foreign.checked_inputs import (
    UNCHECKED,
    Centering,
    HalvesHouseHolder,
    export_first,
    normalized,
)
from onelip.foreign.orthogonium_blocks import (
    block,
    dense_block_bound,
    plain_dense_block,
    plain_orthogonal_block,
    plain_strided_block,
)
from onelip.foreign.plain_modules import (
    bound_of,
    checked_conv,
    plain_conv,
    plain_conv_transpose,
    plain_linear,
)
from onelip.foreign.residual import MeanSquareResidual, WeightedResidual
from onelip.layers.normalize import Normalize
from onelip.lipschitz import Rule, bound_of_part


def _read(module: Any) -> Any:
    """A copy whose weight is a property, to be read as ``forward`` does, caching included."""
    return copy.deepcopy(module).eval()


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
    return bound_of_part(module.fn).clamp(min=1)


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


_CONVOLUTIONS = (
    AOC.RKOConv2d,
    AOC.FastBlockConv2d,
    AOL.AOLConv2D,
    fast_skew_ortho_conv.FastSOC,
)
_FUSED = (AOC.BcopRkoConv2d, soc_x_rko_conv.SOCRkoConv2d)
_TRANSPOSED = (
    AOC.RkoConvTranspose2d,
    AOC.FastBlockConvTranspose2D,
    AOL.AOLConvTranspose2D,
    fast_skew_ortho_conv.SOCTranspose,
)
_FUSED_TRANSPOSED = (AOC.BcopRkoConvTranspose2d, soc_x_rko_conv.SOCRkoConvTranspose2d)
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
    **dict.fromkeys(_CONVOLUTIONS + _FUSED, bound_of(plain_conv)),
    **dict.fromkeys(_TRANSPOSED + _FUSED_TRANSPOSED, bound_of(plain_conv_transpose)),
    **dict.fromkeys(_LINEAR, bound_of(plain_linear)),
    **dict.fromkeys(_UNCHECKED, export_first(UNCHECKED)),
    **dict.fromkeys(_BLOCKS, export_first("computes its kernels anew with every reading")),
    ortho.Abs: _isometry,
    ortho.ChannelShuffle: _isometry,
    ortho.MaxMin: _max_min,
    SoftHuber: _soft_huber,
    residual.ConcatResidual: _concat_residual,
    SLL.SDPBasedLipschitzResBlock: bound_of(block),
    SLL.SDPBasedLipschitzDense: dense_block_bound,
}

EXPORTS: dict[type[nn.Module], Converter] = {
    **dict.fromkeys(_CONVOLUTIONS, lambda module: checked_conv(fixed(module))),
    **dict.fromkeys(_FUSED, lambda module: checked_conv(_read(module))),
    **dict.fromkeys(_TRANSPOSED, lambda module: plain_conv_transpose(fixed(module))),
    **dict.fromkeys(_FUSED_TRANSPOSED, lambda module: plain_conv_transpose(_read(module))),
    **dict.fromkeys(_LINEAR, lambda module: plain_linear(fixed(module))),
    ortho.HouseHolder: _export_house_holder,
    ortho.BatchCentering2D: _export_batch_centering,
    ortho.LayerCentering2D: lambda module: Centering((-2, -1), module.bias.flatten()),
    residual.ConcatResidual: lambda module: residual.ConcatResidual(export(module.fn)),
    residual.L2NormResidual: lambda module: MeanSquareResidual(export(module.fn), eps=module.eps),
    residual.AdditiveResidual: _export_additive,
    residual.PrescaledAdditiveResidual: _export_prescaled,
    SLL.SDPBasedLipschitzResBlock: lambda module: block(fixed(module)),
    SLL.SDPBasedLipschitzDense: plain_dense_block,
    SLL.AOCLipschitzResBlock: plain_orthogonal_block,
    SLL.SLLxAOCLipschitzResBlock: plain_strided_block,
}
