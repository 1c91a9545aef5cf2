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

from onelip.layers.constrained import (
    ConstrainedConv2d,
    ConstrainedLinear,
    KernelLayer,
    orthogonal_,
)
from onelip.layers.convolution_1d import ConstrainedConv1d, Length
from onelip.layers.options import Conv2dOptions, FactoryOptions, Padding, Size, placed
from onelip.layers.transposed_convolution import ConstrainedConvTranspose2d
from onelip.norms.convolutions import Pair, pair

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


def unshuffled(kernel: Tensor, stride: Pair, dilation: Pair) -> Tensor:
    """Kernel of stride 1 that acts on unshuffled pixels as the given one does on the image.

    Shape: ``(out, in, k, l)`` to ``(out, in strides, h, w)`` with h and w the numbers of strides
    that the kernel spans.
    """
    spans = [d * (k - 1) + 1 for k, d in zip(kernel.shape[2:], dilation, strict=True)]
    cells = [-(-reach // s) for reach, s in zip(spans, stride, strict=True)]
    spread = kernel.new_zeros(*kernel.shape[:2], cells[0] * stride[0], cells[1] * stride[1])
    spread[..., : spans[0] : dilation[0], : spans[1] : dilation[1]] = kernel
    split = spread.unflatten(3, (-1, stride[1])).unflatten(2, (-1, stride[0]))
    phases: Tensor = split.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    return phases


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
        >>> bool(onelip.lipschitz_bound(AOLLinear(8, 4)) < 1 + 1e-5)
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


class ScaledKernel(KernelLayer):
    """A layer with the kernel ``P diag(d)``."""

    raw_weight: nn.Parameter

    def scale_kernel(self, rescalings: int, **factory: Unpack[FactoryOptions]) -> None:
        """Make the free kernel.

        Raises:
            ValueError: there is no rescaling.
        """
        if rescalings < 1:
            raise ValueError(f"rescalings must be positive, got {rescalings}")
        self.rescalings = rescalings
        inputs, outputs = self.group_channels
        shape = (outputs * self.groups, inputs, *self.kernel_size)
        self.raw_weight = nn.Parameter(torch.empty(shape, **factory))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the central tap (taps, with a stride) to the identity or an orthogonal matrix."""
        inputs, outputs = self.group_channels
        pairs = zip(self.kernel_size, self.stride, strict=True)
        rows, columns = [((k - min(s, k)) // 2, min(s, k)) for k, s in pairs]
        self.raw_weight.zero_()
        for block in self.raw_weight.split(outputs):
            matrix = _identity_like(
                outputs, inputs * rows[1] * columns[1], device=block.device, dtype=block.dtype
            )
            window = block.narrow(2, *rows).narrow(3, *columns)
            window.copy_(matrix.view(outputs, inputs, rows[1], columns[1]))

    @override
    def compute_weight(self) -> Tensor:
        kernel: Tensor = self.raw_weight
        for _ in range(self.rescalings):  # whose norm is at most 1 after the first
            kernel = self._rescaled(kernel)
        return kernel

    def _rescaled(self, weight: Tensor) -> Tensor:
        """Multiply by the scales of each channel and phase."""
        stride, dilation = pair(self.stride), pair(self.dilation)
        if max(stride) == 1:
            dilation = (1, 1)  # the sums are the same
        kernel = unshuffled(weight, stride, dilation).unflatten(0, (self.groups, -1))
        phases = scales(gram_sums(kernel)).view(self.groups, 1, -1, *stride)
        rows, columns = [
            torch.arange(k, device=kernel.device) * d % s
            for k, d, s in zip(pair(self.kernel_size), dilation, stride, strict=True)
        ]
        # all taps that read pixels of one phase share that phase's scale
        per_tap = phases[..., rows[:, None], columns]
        scaled: Tensor = weight.unflatten(0, (self.groups, -1)) * per_tap
        return scaled.flatten(0, 1)


class AOLConv2d(ScaledKernel, ConstrainedConv2d):
    r"""Convolution with the kernel ``P diag(d)``, scaled per input channel (and stride's phase).

    Bound: the proved norm of the kernel; at most 1 up to rounding. More padding than the kernel
    needs repeats circular pixels, and the bound says so.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and ``4 out in^2 k^4`` multiplications a step, per group.

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
        rescalings: how often the kernel is rescaled; more lose less of its length.
        **options: ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: groups that do not divide the channels, no rescaling.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(AOLConv2d(4, 8, 3)) < 1 + 1e-5)
        True

    Reference: Prach, Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz
    networks", ECCV 2022.
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
        rescalings: int = 1,
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
        self.scale_kernel(rescalings, **placed(options))


class AOLConv1d(ScaledKernel, ConstrainedConv1d):
    r"""``AOLConv2d`` of sequences.

    Bound: the proved norm of the kernel; at most 1 up to rounding.
    Shape: ``(batch, in_channels, length)`` to ``(batch, out_channels, length / stride)``.
    Cost: a convolution, and ``4 out in^2 k^2`` multiplications a step, per group.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: length of the kernel.
        stride: step of the window.
        padding: as ``nn.Conv1d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        rescalings: how often the kernel is rescaled; more lose less of its length.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels, no rescaling; in ``forward``, a length
            that the stride does not divide, under circular padding.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(AOLConv1d(4, 8, 3)) < 1 + 1e-5)
        True

    Reference: Prach, Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz
    networks", ECCV 2022.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Length,
        stride: Length = 1,
        padding: Length | str | None = None,
        dilation: Length = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "circular",
        *,
        rescalings: int = 1,
        **factory: Unpack[FactoryOptions],
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
            **factory,
        )
        self.scale_kernel(rescalings, **factory)


class AOLConvTranspose2d(ScaledKernel, ConstrainedConvTranspose2d):
    r"""Transposed convolution, the adjoint of an ``AOLConv2d``: scaled per output channel.

    Bound: the proved norm of the kernel; at most 1 up to rounding.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')`` as
        ``nn.ConvTranspose2d``; ``(stride h, stride w)`` for ``padding=None``.
    Cost: a transposed convolution, and ``4 in out^2 k^4`` multiplications a step, per group.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: distance of the windows in the output.
        padding: pixels that are cropped from each side of the output; None for an output of
            ``stride`` times the input's sides.
        output_padding: pixels that are cropped less, or added, at the end of each axis.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        dilation: distance of the taps.
        padding_mode: ``"zeros"``, as in torch.
        rescalings: how often the kernel is rescaled; more lose less of its length.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels, no rescaling, paddings that torch
            refuses.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(AOLConvTranspose2d(4, 8, 3)) < 1 + 1e-5)
        True

    Reference: Prach, Lampert, "Almost-orthogonal layers for efficient general-purpose Lipschitz
    networks", ECCV 2022.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | None = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        rescalings: int = 1,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            **factory,
        )
        self.scale_kernel(rescalings, **factory)
