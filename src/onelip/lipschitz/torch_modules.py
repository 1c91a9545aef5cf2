"""Bounds of torch's own modules."""

import math

import torch
from torch import Tensor, nn

from onelip import norms
from onelip.errors import UnboundedModuleError
from onelip.lipschitz._bound import bound_of_part
from onelip.lipschitz.rules import rule
from onelip.norms.convolution import pair
from onelip.norms.rounding import downward, exact, product, upward
from onelip.norms.slopes import SLOPES, slopes
from onelip.norms.windows import Windows, overlap_of_maxima, overlap_of_sums, root_above


@rule(*SLOPES)
def _activation(module: nn.Module) -> float:
    low, high = slopes(module)
    return max(abs(low), abs(high))


MOVES: tuple[type[nn.Module], ...] = (
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad2d,
    nn.PixelUnshuffle,
    nn.PixelShuffle,
    nn.ChannelShuffle,
)
"""Modules of torch that move numbers, or put zeros between them."""


@rule(*MOVES)
def _isometry(module: nn.Module) -> float:
    if isinstance(module, nn.Unflatten) and module.dim == 0:
        raise UnboundedModuleError(
            "Unflatten(0, ...) makes samples of one into samples of several, or the other way "
            "round: dim=1 or more"
        )
    return 1.0


@rule(nn.Sequential)
def _sequential(module: nn.Sequential) -> Tensor:
    return product([bound_of_part(part) for part in module])


@rule(nn.Linear)
def _linear(module: nn.Linear) -> Tensor:
    return norms.dense(module.weight)


@rule(nn.Conv2d)
def _conv2d(module: nn.Conv2d) -> Tensor:
    """For every image size, since the module does not know its own."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        padding_mode=module.padding_mode,
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


@rule(nn.Conv1d)
def _conv1d(module: nn.Conv1d) -> Tensor:
    padding = module.padding if isinstance(module.padding, str) else (0, module.padding[0])
    return norms.convolution(
        module.weight[:, :, None],
        padding=padding,
        padding_mode=module.padding_mode,
        stride=(1, module.stride[0]),
        dilation=(1, module.dilation[0]),
        groups=module.groups,
    )


@rule(nn.ConvTranspose2d)
def _conv_transpose2d(module: nn.ConvTranspose2d) -> Tensor:
    """The adjoint of ``nn.Conv2d`` with the same weight, or of a part of it, with zero padding."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


@rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
def _dropout(module: nn.Module) -> float:
    if module.training:
        raise UnboundedModuleError(f"{type(module).__name__} is random in training: model.eval()")
    return 1.0


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(module: nn.BatchNorm2d) -> Tensor:
    if module.training or module.running_var is None:
        raise UnboundedModuleError(
            "BatchNorm divides by batch statistics in training and without running ones: "
            "model.eval(), track_running_stats=True"
        )
    deviation = downward((exact(module.running_var) + module.eps).sqrt(), 2)
    scale = torch.ones_like(deviation) if module.weight is None else exact(module.weight).abs()
    return upward(scale / deviation, 1).max()


@rule(nn.AvgPool2d)
def _average_pool(module: nn.AvgPool2d) -> float:
    """The box filter, its taps counted by phase of the stride: exact on large images."""
    if module.ceil_mode or (any(pair(module.padding)) and not module.count_include_pad):
        raise UnboundedModuleError(
            "AvgPool2d divides by less at the border: ceil_mode=False, count_include_pad=True"
        )
    windows = _windows(module)
    area = math.prod(kernel for kernel, _ in windows)
    return root_above(overlap_of_sums(windows), module.divisor_override or area)


@rule(nn.MaxPool2d)
def _max_pool(module: nn.MaxPool2d) -> float:
    """A pixel reaches at most the windows that cover it: the root of their number."""
    if module.return_indices:
        raise UnboundedModuleError("MaxPool2d returns indices, which jump: return_indices=False")
    return root_above(overlap_of_maxima(_windows(module), pair(module.dilation)))


def _windows(module: nn.AvgPool2d | nn.MaxPool2d) -> Windows:
    return list(zip(pair(module.kernel_size), pair(module.stride), strict=True))
