r"""Reshaped kernel orthogonalisation (Cisse et al., 2017; Li et al., 2019).

A kernel of shape (out, in, k, k) read as a matrix of out rows has a norm M; each pixel is read by
at most :math:`\lceil k / s \rceil^2` windows at stride s, so the convolution has norm at most
:math:`\lceil k / s \rceil M`. RKO orthogonalises the matrix and divides by that factor. The
result is 1-Lipschitz, and orthogonal only for k = s.
"""

import math
from typing import Unpack

from torch import Tensor
from typing_extensions import override

from onelip.layers.constrained import ConstrainedConv2d, KernelLayer
from onelip.layers.convolution_1d import ConstrainedConv1d, Length
from onelip.layers.options import Conv2dOptions, FactoryOptions, Padding, Size, placed
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)
from onelip.layers.transposed_convolution import ConstrainedConvTranspose2d
from onelip.norms.convolutions import pair
from onelip.norms.windows import overlap_of_maxima


class ReshapedKernel(KernelLayer, OrthogonalLayer):
    """A layer whose kernel is an orthogonal matrix, divided by the root of the overlap."""

    def reshape_kernel(
        self, orthogonalise: Orthogonalise, **factory: Unpack[FactoryOptions]
    ) -> None:
        """Make the free matrices."""
        self.orthogonalise = orthogonalise
        inputs, outputs = self.group_channels
        columns = inputs * math.prod(self.kernel_size)
        self.raw_weight = tall(outputs, columns, count=self.groups, **factory)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_weight]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        inputs, outputs = self.group_channels
        rows, columns = pair(self.kernel_size)
        flat = oriented(matrices[0], outputs, inputs * rows * columns).flatten(0, 1)
        # the norm grows at most by the root of the number of windows that share a pixel
        axes = list(zip((rows, columns), pair(self.stride), strict=True))
        windows = overlap_of_maxima(axes, pair(self.dilation))
        return flat.reshape(-1, inputs, rows, columns) / math.sqrt(windows)


class RKOConv2d(ReshapedKernel, ConstrainedConv2d):
    r"""Convolution whose reshaped kernel is orthogonal, divided by ``ceil(k / stride)``.

    Bound: the proved norm of the kernel; at most 1 up to rounding, below it unless the stride is k.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution and one orthogonalisation of an ``out x in k^2`` matrix.

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
        orthogonalise: how the matrix is orthogonalised; ``onelip.layers.bjorck`` as in the paper.
        **options: ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: groups that do not divide the channels.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(RKOConv2d(4, 8, 3)) < 1.001)
        True

    Reference: Li et al., "Preventing gradient attenuation in Lipschitz constrained convolutional
    networks", NeurIPS 2019, section 4.1.
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
        orthogonalise: Orthogonalise = cholesky_qr,
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
        self.reshape_kernel(orthogonalise, **placed(options))


class RKOConv1d(ReshapedKernel, ConstrainedConv1d):
    r"""``RKOConv2d`` of sequences, divided by the root of the number of windows that overlap.

    Bound: the proved norm of the kernel; at most 1 up to rounding, and 1 for ``stride`` k.
    Shape: ``(batch, in_channels, length)`` to ``(batch, out_channels, length / stride)``.
    Cost: a convolution and one orthogonalisation of an ``out x in k`` matrix.

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
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels; in ``forward``, a length that the
            stride does not divide, under circular padding.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(RKOConv1d(4, 8, 3)) < 1.001)
        True

    Reference: Li et al., "Preventing gradient attenuation in Lipschitz constrained convolutional
    networks", NeurIPS 2019, section 4.1.
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
        orthogonalise: Orthogonalise = cholesky_qr,
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
        self.reshape_kernel(orthogonalise, **factory)


class RKOConvTranspose2d(ReshapedKernel, ConstrainedConvTranspose2d):
    r"""Transposed convolution, the adjoint of an ``RKOConv2d``.

    Bound: the proved norm of the kernel; at most 1 up to rounding, below it unless the stride is k.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')`` as
        ``nn.ConvTranspose2d``; ``(stride h, stride w)`` for ``padding=None``.
    Cost: a transposed convolution and one orthogonalisation of an ``in x out k^2`` matrix.

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
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels, paddings that torch refuses.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(RKOConvTranspose2d(4, 8, 3)) < 1.001)
        True

    Reference: Li et al., "Preventing gradient attenuation in Lipschitz constrained convolutional
    networks", NeurIPS 2019, section 4.1.
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
        orthogonalise: Orthogonalise = cholesky_qr,
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
        self.reshape_kernel(orthogonalise, **factory)
