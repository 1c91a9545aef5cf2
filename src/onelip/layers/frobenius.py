r"""Weights divided by their Frobenius norm, which is never below the spectral norm.

The cheapest constraint: one norm, differentiable everywhere but at 0, and no iteration. Of n equal
singular values it leaves :math:`1 / \sqrt n` of each, so it suits narrow layers, such as heads of
one output, whose spectral norm it is.
"""

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear
from onelip.layers.options import Conv2dOptions, FactoryOptions, Padding, Size, placed
from onelip.norms.windows import overlap_of_maxima


class FrobeniusLinear(ConstrainedLinear):
    """``k W x / |W|_F + b``: the matrix divided by the root of the sum of its squares.

    Bound: the proved norm of the matrix in use, at most k up to rounding; k for one output.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: a linear layer and one norm.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        k: the constant, above 0.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: k is not a positive number.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(FrobeniusLinear(8, 1, k=3.0)) - 3) < 1e-5)
        True

    Reference: Serrurier et al., "Achieving robustness in classification using optimal transport
    with hinge regularization", CVPR 2021.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        k: float = 1.0,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.k = _constant(k)
        self.raw_weight = nn.Parameter(torch.empty(out_features, in_features, **factory))
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))

    @override
    def compute_weight(self) -> Tensor:
        return self.k * _unit(self.raw_weight[None])[0]


class FrobeniusConv2d(ConstrainedConv2d):
    """Convolution with a kernel of Frobenius norm k, divided by the root of the overlap.

    A pixel is read by at most ``ceil(size / stride)`` windows along each axis, which is what the
    norm of the convolution grows by. Groups are divided by norms of their own.

    Bound: the proved norm of the kernel in use, at most k up to rounding.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution and one norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: step of the window.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        k: the constant, above 0.
        **options: ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: groups that do not divide the channels, or k is not a positive number.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(FrobeniusConv2d(4, 8, 3)) < 1)
        True

    Reference: Serrurier et al., "Achieving robustness in classification using optimal transport
    with hinge regularization", CVPR 2021.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "circular",
        *,
        k: float = 1.0,
        **options: Unpack[Conv2dOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            **options,
        )
        self.k = _constant(k)
        inputs, _ = self.group_channels
        shape = (out_channels, inputs, *self.kernel_size)
        self.raw_weight = nn.Parameter(torch.empty(shape, **placed(options)))
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))

    @override
    def compute_weight(self) -> Tensor:
        axes = list(zip(self.kernel_size, self.stride, strict=True))
        windows = overlap_of_maxima(axes, self.dilation)
        kernels = _unit(self.raw_weight.unflatten(0, (self.groups, -1)))
        return self.k / math.sqrt(windows) * kernels.flatten(0, 1)


def _unit(weights: Tensor) -> Tensor:
    """Divide each weight of a stack by its Frobenius norm; one of zeros stays so."""
    least = torch.finfo(weights.dtype).tiny
    norms = torch.linalg.vector_norm(weights.flatten(1), dim=1).clamp_min(least)
    unit: Tensor = weights / norms.view(-1, *(1,) * (weights.ndim - 1))
    return unit


def _constant(k: float) -> float:
    """Return k, if it is a positive number."""
    if not 0 < k < math.inf:
        raise ValueError(f"k must be positive and finite, got {k}")
    return k
