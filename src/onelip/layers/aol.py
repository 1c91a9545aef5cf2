r"""Almost-orthogonal layers (Prach, Lampert, ECCV 2022).

For every matrix P and :math:`d_j = (\sum_i |P^T P|_{ij})^{-1/2}` the matrix
:math:`\mathrm{diag}(d)^{-2} - P^T P` is diagonally dominant, hence positive semidefinite, so
:math:`P\, \mathrm{diag}(d)` has norm at most 1; it is orthogonal if the columns of P are.

A convolution is such a matrix whose Gram matrix is a convolution with the taps
:math:`G_\delta = \sum_t P_t^T P_{t + \delta}`, the same for every pixel: the sums run over channels
and taps. Pixels that wrap around a small image, or fall into its padding, only make them smaller.
Under a stride s the pixels of each of its s x s phases meet other taps. The image is unshuffled
first, and every channel and phase has a scale of its own, which goes into the taps that read it.
"""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear, orthogonal_
from onelip.layers.options import Conv2dOptions, FactoryOptions, placed

_EPSILON = 1e-12  # the smallest sum that is divided by: scales are too short rather than too long


def scales(sums: Tensor) -> Tensor:
    """Return ``sums^{-1/2}``, finite for columns of zeros."""
    return sums.clamp_min(max(_EPSILON, torch.finfo(sums.dtype).tiny)).rsqrt()


def gram_sums(kernels: Tensor) -> Tensor:
    """Absolute sums of the Gram kernel of each group, for each of its input channels.

    Shape: ``(groups, out, in, height, width)`` to ``(groups, in)``.
    Cost: ``4 out in^2`` times the square of the number of taps, in multiplications.
    """
    groups, height, width = kernels.shape[0], *kernels.shape[-2:]
    # full correlation of the kernel with itself: one tap for each displacement of two pixels
    turned = kernels.transpose(1, 2)
    gram = F.conv2d(
        turned.transpose(0, 1).flatten(1, 2),
        turned.flatten(0, 1),
        padding=(height - 1, width - 1),
        groups=groups,
    )
    return gram.abs().sum((0, 2, 3)).view(groups, -1)


def unshuffled(kernel: Tensor, stride: int, dilation: int) -> Tensor:
    """Kernel of stride 1 that acts on unshuffled pixels as the given one does on the image.

    Shape: ``(out, in, k, k)`` to ``(out, in stride^2, h, h)`` with ``h`` the number of strides
    that the kernel spans.
    """
    reach = dilation * (kernel.shape[-1] - 1) + 1
    side = -(-reach // stride) * stride
    spread = kernel.new_zeros(*kernel.shape[:2], side, side)
    spread[..., :reach:dilation, :reach:dilation] = kernel
    return F.pixel_unshuffle(spread, stride)


def _identity_like(rows: int, columns: int, **factory: Unpack[FactoryOptions]) -> Tensor:
    """Return the identity, or an orthogonal matrix if the shape is not square."""
    matrix = torch.empty(rows, columns, **factory)
    return nn.init.eye_(matrix) if rows == columns else orthogonal_(matrix)


class AOLLinear(ConstrainedLinear):
    r"""``W x + b`` with ``W = P diag(d)``, P free and ``d_j = (sum_i |P^T P|_ij)^{-1/2}``.

    Bound: the proved norm of W; at most 1 up to rounding.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: ``out in^2`` multiplications a step.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        **factory: ``device`` and ``dtype`` of the parameters.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(AOLLinear(8, 4)) < 1 + 1e-6)
        True

    Reference: Prach, Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz
    networks", ECCV 2022.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.raw_weight = nn.Parameter(_identity_like(out_features, in_features, **factory))

    @override
    def compute_weight(self) -> Tensor:
        # diag(d)^-2 - P^T P is diagonally dominant, so W^T W <= I whatever P is
        gram = self.raw_weight.T @ self.raw_weight
        return self.raw_weight * scales(gram.abs().sum(0))


class AOLConv2d(ConstrainedConv2d):
    r"""Convolution with the kernel ``P diag(d)``, scaled per input channel (and stride's phase).

    Bound: the proved norm of the kernel; at most 1 up to rounding. More padding than the kernel
    needs repeats circular pixels, and the bound says so.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and ``4 out in^2 k^4`` multiplications a step, per group.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: step of the window.
        **options: ``padding``, ``padding_mode``, ``dilation``, ``groups``, ``bias``,
            ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: groups that do not divide the channels.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(AOLConv2d(4, 8, 3)) < 1 + 1e-6)
        True

    Reference: Prach, Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz
    networks", ECCV 2022.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        **options: Unpack[Conv2dOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, **options)
        inputs, _ = self.group_channels
        shape = (out_channels, inputs, kernel_size, kernel_size)
        self.raw_weight = nn.Parameter(torch.empty(shape, **placed(options)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the central tap (taps, with a stride) to the identity or an orthogonal matrix."""
        inputs, outputs = self.group_channels
        side = min(self.stride, self.kernel_size)
        start = (self.kernel_size - side) // 2
        centre = slice(start, start + side)
        self.raw_weight.zero_()
        for block in self.raw_weight.split(outputs):
            matrix = _identity_like(
                outputs, inputs * side**2, device=block.device, dtype=block.dtype
            )
            block[:, :, centre, centre] = matrix.view(outputs, inputs, side, side)

    @override
    def compute_weight(self) -> Tensor:
        stride = self.stride
        dilation = self.dilation if stride > 1 else 1  # otherwise the sums are the same
        kernel = unshuffled(self.raw_weight, stride, dilation).unflatten(0, (self.groups, -1))
        phases = scales(gram_sums(kernel)).view(self.groups, 1, -1, stride, stride)
        phase = torch.arange(self.kernel_size, device=kernel.device) * dilation % stride
        # all taps that read pixels of one phase share that phase's scale
        per_tap = phases[..., phase[:, None], phase]
        scaled: Tensor = self.raw_weight.unflatten(0, (self.groups, -1)) * per_tap
        return scaled.flatten(0, 1)
