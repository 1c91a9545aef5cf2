"""orthogonium's layers (Thibaut Boissin, MIT licence), as of version 0.0.4.

Most of its kernels are divided by a power iteration that takes a step at every reading, in eval
mode too. ``lipschitz_bound`` refuses those; ``onelip.export`` reads them once.
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

from onelip._export import export, fixed
from onelip.errors import UnboundedModuleError
from onelip.foreign.checked_inputs import (
    Centering,
    HalvesHouseHolder,
    export_first,
    normalized,
    unchecked,
)
from onelip.foreign.orthogonium_blocks import (
    block,
    dense_block_bound,
    plain_dense_block,
    plain_orthogonal_block,
    plain_strided_block,
)
from onelip.foreign.plain_modules import (
    Plain,
    as_plain,
    bound_of,
    checked_conv,
    plain_conv,
    plain_conv_transpose,
    plain_linear,
)
from onelip.layers.normalize import Normalize
from onelip.layers.residual import MeanSquareResidual, WeightedResidual
from onelip.lipschitz import ModuleRecord, bound_of_part


def _read(module: Any) -> Any:
    """Return a copy in eval mode, whose weight property is read as ``forward`` reads it."""
    return copy.deepcopy(module).eval()


def _isometry(_: Any) -> float:
    """Return 1, the constant of the absolute value and of a permutation."""
    return 1.0


def _max_min(module: Any) -> float:
    """Return 1, if the axis is not that of the batch."""
    if module.axis < 1:
        raise UnboundedModuleError(f"MaxMin along axis={module.axis} may mix the batch: axis=1")
    return 1.0


def _soft_huber(module: Any) -> float:
    """Return 1: the slope is ``z / sqrt(delta^2 + z^2)``."""
    if not 0 < abs(module.delta) < math.inf:
        raise UnboundedModuleError(f"SoftHuber with delta={module.delta} is not a number")
    return 1.0


def _concat_residual(module: Any) -> Tensor:
    """Return ``max(1, L)``: fn acts on one half of the channels, the other half is kept."""
    return bound_of_part(module.fn).clamp(min=1)


def _export_additive(module: Any) -> WeightedResidual:
    """Return ``alpha x + (1 - alpha) fn(x)`` with the current alpha."""
    alpha = torch.sigmoid(module.alpha)
    return WeightedResidual(export(module.fn), alpha, 1 - alpha, torch.ones_like(alpha))


def _export_prescaled(module: Any) -> WeightedResidual:
    """Return ``(x + fn(alpha x)) / (1 + |alpha|)`` with the current alpha."""
    share = 1 / (1 + module.alpha.abs())
    return WeightedResidual(export(module.fn), share, share, module.alpha)


def _export_house_holder(module: Any) -> HalvesHouseHolder:
    """Return the same folds and scale, with a check of the channels."""
    if module.axis != 1:
        raise UnboundedModuleError(
            f"HouseHolder has an angle per channel and folds axis {module.axis}: axis=1"
        )
    return HalvesHouseHolder(module.theta, scale=1 / math.sqrt(2))


def _export_batch_centering(module: Any) -> Normalize:
    """Return ``x - mean + bias`` with the running mean."""
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


def _recomputed(convert: Plain) -> ModuleRecord:
    """Return the record of blocks whose weights have to be fixed by export first."""
    return ModuleRecord(
        lipschitz_bound=export_first("computes its kernels anew with every reading"),
        export=convert,
    )


RECORDS: dict[type[nn.Module], ModuleRecord] = {
    **dict.fromkeys(
        _CONVOLUTIONS, as_plain(plain_conv, export=lambda module: checked_conv(fixed(module)))
    ),
    **dict.fromkeys(
        _FUSED, as_plain(plain_conv, export=lambda module: checked_conv(_read(module)))
    ),
    **dict.fromkeys(
        _TRANSPOSED,
        as_plain(plain_conv_transpose, export=lambda module: plain_conv_transpose(fixed(module))),
    ),
    **dict.fromkeys(
        _FUSED_TRANSPOSED,
        as_plain(plain_conv_transpose, export=lambda module: plain_conv_transpose(_read(module))),
    ),
    **dict.fromkeys(
        _LINEAR, as_plain(plain_linear, export=lambda module: plain_linear(fixed(module)))
    ),
    ortho.Abs: ModuleRecord(lipschitz_bound=_isometry),
    ortho.ChannelShuffle: ModuleRecord(lipschitz_bound=_isometry),
    ortho.MaxMin: ModuleRecord(lipschitz_bound=_max_min),
    SoftHuber: ModuleRecord(lipschitz_bound=_soft_huber),
    ortho.HouseHolder: unchecked(_export_house_holder),
    ortho.BatchCentering2D: unchecked(_export_batch_centering),
    ortho.LayerCentering2D: unchecked(lambda module: Centering((-2, -1), module.bias.flatten())),
    residual.ConcatResidual: ModuleRecord(
        lipschitz_bound=_concat_residual,
        export=lambda module: residual.ConcatResidual(export(module.fn)),
    ),
    residual.L2NormResidual: unchecked(
        lambda module: MeanSquareResidual(export(module.fn), eps=module.eps)
    ),
    residual.AdditiveResidual: unchecked(_export_additive),
    residual.PrescaledAdditiveResidual: unchecked(_export_prescaled),
    SLL.SDPBasedLipschitzResBlock: ModuleRecord(
        lipschitz_bound=bound_of(block), export=lambda module: block(fixed(module))
    ),
    SLL.SDPBasedLipschitzDense: ModuleRecord(
        lipschitz_bound=dense_block_bound, export=plain_dense_block
    ),
    SLL.AOCLipschitzResBlock: _recomputed(plain_orthogonal_block),
    SLL.SLLxAOCLipschitzResBlock: _recomputed(plain_strided_block),
}
"""Bound, reading and export of the library's modules, by exact type."""
