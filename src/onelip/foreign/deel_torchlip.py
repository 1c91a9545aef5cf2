"""deel-torchlip's layers (DEEL team, MIT licence), as of version 1.0.5.

The coefficient of a ``Sequential`` reaches pools and activations, which multiply by it, but not the
weights, which are computed before. Rules use the factor that each ``forward`` multiplies by.
"""

from collections import OrderedDict
from typing import Any

import torch
from deel.torchlip import modules as deel
from torch import Tensor, nn

from onelip._export import export, fixed
from onelip.errors import UnboundedModuleError
from onelip.foreign.checked_inputs import (
    Centering,
    HalvesHouseHolder,
    factor_above,
    normalized,
    unchecked,
)
from onelip.foreign.plain_modules import (
    as_plain,
    checked_conv,
    plain_conv,
    plain_conv_transpose,
    plain_linear,
)
from onelip.layers.normalize import Normalize
from onelip.lipschitz import RECORDS as OF_TORCH
from onelip.lipschitz import ModuleRecord, bound_of_part
from onelip.norms.convolutions import pair
from onelip.norms.rounding import exact, product, upward
from onelip.norms.windows import overlap_of_maxima, root_above


def unpadded(module: Any) -> Any:
    """Return the convolution itself, if its class adds no padding to torch's own.

    Raises:
        UnboundedModuleError: symmetric padding.
    """
    # ``pad`` is the identity only if its code is the lambda in the constructor of the class
    owner = deel.PadConv1d if isinstance(module, deel.PadConv1d) else deel.PadConv2d
    code = getattr(module.pad, "__code__", None)  # that lambda returns its argument
    if code is None or code not in owner.__init__.__code__.co_consts:
        raise UnboundedModuleError(
            f"{type(module).__name__} pads by {module.pad!r} of its own (padding_mode="
            f"{module.old_padding_mode!r}), which may stretch norms; use 'zeros' or 'circular'"
        )
    return module


def _isometry(_: Any) -> float:
    """Return 1, the constant of an isometry."""
    return 1.0


def _scaled_isometry(module: Any) -> float:
    """Return the factor that ``forward`` multiplies a 1-Lipschitz map by."""
    return factor_above(module._coefficient_lip)


def _max_min(module: Any) -> float:
    """Bound of the split into positive and negative parts, which moves no two inputs apart."""
    if module._dim is not None and module._dim < 1:
        raise UnboundedModuleError(f"MaxMin along dim={module._dim} may mix the batch: dim=1")
    return _scaled_isometry(module)


def _lp_relu(module: Any) -> Tensor:
    """Return the largest slope: 1 or the clamped learned one."""
    limit = module._coefficient_lip
    return exact(torch.clamp(module.weight, -limit, limit)).abs().max().clamp(min=1)


def _average_pool(module: Any) -> Tensor:
    """Return the bound of torch's average pooling, times the factor."""
    average = torch.as_tensor(OF_TORCH[nn.AvgPool2d].lipschitz_bound(module), dtype=torch.float64)
    factor = factor_above(module._coefficient_lip * module.scalingFactor)
    return product([average, torch.tensor(factor, dtype=torch.float64)])


def _whole_average(module: Any) -> Tensor:
    """Return the factor; the root of the number of pixels is rounded to float32 at worst."""
    factor = torch.tensor(factor_above(module._coefficient_lip), dtype=torch.float64)
    return upward(factor * (1 + 2**-23), 4)


def _l2_pool(module: Any) -> Tensor:
    """Return the root of the number of windows that share a pixel, times the factor."""
    if module.ceil_mode or module.norm_type != 2:
        raise UnboundedModuleError(
            "ScaledL2NormPool2d stretches windows that leave the image: ceil_mode=False"
        )
    strides = module.kernel_size if module.stride is None else module.stride
    windows = list(zip(pair(module.kernel_size), pair(strides), strict=True))
    factors = [root_above(overlap_of_maxima(windows)), factor_above(module._coefficient_lip)]
    return product([torch.tensor(factor, dtype=torch.float64) for factor in factors])


def _sequential(module: Any) -> Tensor:
    """Return the product of the bounds of the parts."""
    return product([bound_of_part(part) for part in module])


def _export_sequential(module: Any) -> nn.Sequential:
    """Return a plain ``nn.Sequential`` of the exported parts."""
    names = module._modules  # unlike named_children(), with modules that occur twice
    return nn.Sequential(OrderedDict(zip(names, map(export, module), strict=True)))


def _export_batch_norm(module: Any) -> Normalize:
    """Return ``(x - mean) scale + bias``, one scale for all, as ``(x - mean') / std``.

    The new mean is ``mean - bias / scale``.

    In eval mode ``forward`` first turns sums over batches into means. That affects only the number
    of samples that the variance is corrected for, so it is done here, once.
    """
    batches, sums = module.running_num_batches.item(), module.running_sum_bmean
    mean = sums / batches if batches else torch.zeros_like(sums)
    std = torch.ones_like(sums)
    if module.normalize and batches:
        samples, total = module.running_mean_sample_per_batches, module.total_num_samples
        samples = samples if batches > 1 or total == 0 else total
        variance = (module.running_sum_bmeansq / batches - mean**2) * samples / (samples - 1)
        variance = torch.where(variance < module.eps, 1.0, variance)
        std = variance.max().sqrt().expand_as(mean)
    return normalized(mean if module.bias is None else mean - module.bias * std, std)


def _export_scale_bias(module: Any) -> Normalize:
    """Return ``x scale + bias`` as ``(x - (-bias / scale)) / (1 / scale)``."""
    if module.bias is None or not torch.as_tensor(module.scalar).all():
        raise UnboundedModuleError("ScaleBiasLayer without bias or with a scale of 0: leave it out")
    std = (1 / torch.as_tensor(module.scalar).to(module.bias)).expand_as(module.bias)
    return normalized(-module.bias * std, std)


def _export_centering(module: Any) -> Centering:
    """Return a centering that checks its input."""
    axes = (module.dim,) if isinstance(module.dim, int) else tuple(module.dim)
    return Centering(axes, module.bias)


_CONVOLUTIONS = (
    deel.PadConv1d,
    deel.PadConv2d,
    deel.SpectralConv1d,
    deel.SpectralConv2d,
    deel.FrobeniusConv2d,
)
_LINEAR = (deel.SpectralLinear, deel.FrobeniusLinear)
_SORTS = (deel.GroupSort, deel.GroupSort2, deel.FullSort)

RECORDS: dict[type[nn.Module], ModuleRecord] = {
    **dict.fromkeys(
        _CONVOLUTIONS,
        as_plain(
            lambda module: plain_conv(unpadded(module)),
            export=lambda module: checked_conv(unpadded(fixed(module))),
        ),
    ),
    **dict.fromkeys(
        _LINEAR, as_plain(plain_linear, export=lambda module: plain_linear(fixed(module)))
    ),
    deel.SpectralConvTranspose2d: as_plain(
        plain_conv_transpose, export=lambda module: plain_conv_transpose(fixed(module))
    ),
    deel.Sequential: ModuleRecord(lipschitz_bound=_sequential, export=_export_sequential),
    **dict.fromkeys(_SORTS, ModuleRecord(lipschitz_bound=_scaled_isometry)),
    deel.MaxMin: ModuleRecord(lipschitz_bound=_max_min),
    deel.LPReLU: ModuleRecord(lipschitz_bound=_lp_relu),
    deel.ScaledAvgPool2d: ModuleRecord(lipschitz_bound=_average_pool),
    deel.ScaledAdaptiveAvgPool2d: ModuleRecord(lipschitz_bound=_whole_average),
    deel.ScaledL2NormPool2d: ModuleRecord(lipschitz_bound=_l2_pool),
    deel.ScaledAdaptativeL2NormPool2d: ModuleRecord(lipschitz_bound=_scaled_isometry),
    deel.InvertibleDownSampling: ModuleRecord(lipschitz_bound=_isometry),
    deel.InvertibleUpSampling: ModuleRecord(lipschitz_bound=_isometry),
    deel.HouseHolder: unchecked(lambda module: HalvesHouseHolder(module.theta)),
    deel.LayerCentering: unchecked(_export_centering),
    deel.BatchCentering: unchecked(_export_batch_norm),
    deel.BatchLipNorm: unchecked(_export_batch_norm),
    deel.ScaleBiasLayer: unchecked(_export_scale_bias),
}
"""Bound, reading and export of the library's modules, by exact type."""
