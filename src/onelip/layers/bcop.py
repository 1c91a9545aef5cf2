r"""Block convolution orthogonal parameterization (Li et al., NeurIPS 2019, Algorithm 1)."""

from typing import Unpack

from onelip.layers.block_convolution import ComposedKernel, Composition, windows_side_by_side
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.convolution_1d import ConstrainedConv1d, Length
from onelip.layers.options import Conv2dOptions, FactoryOptions, Padding, Size, placed
from onelip.layers.orthogonal import Orthogonalise, cholesky_qr
from onelip.norms.convolutions import Pair


def windowed_composition(
    channels: Pair, kernel_size: Pair, stride: Pair, dilation: Pair
) -> Composition:
    """Return how a kernel of one group is made of whole windows.

    Raises:
        ValueError: the kernel is not made of whole windows, or skips pixels.
    """
    window = windows_side_by_side(kernel_size, stride, dilation)
    if window != stride or any(k % s for k, s in zip(kernel_size, stride, strict=True)):
        raise ValueError(
            f"a stride of {stride} needs a kernel_size that it divides and a dilation without a "
            f"common divisor, got {kernel_size} and {dilation}: AOCConv2d takes any that has an "
            "orthogonal kernel"
        )
    return Composition.on_windows(*channels, kernel_size, window)


class BCOPConv2d(ComposedKernel, ConstrainedConv2d):
    r"""Orthogonal convolution by BCOP.

    A stride is invertible downsampling followed by a convolution of ``kernel_size / stride``, as in
    the paper, folded into one strided kernel. ``AOCConv2d`` strides without that restriction.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding the map is
    orthogonal (an isometry on the smaller side). From one channel to one without a stride, such a
    map is a shift: the kernel is 1 or -1 at its centre. Under zero padding it is 1-Lipschitz only.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and per step ``k^2 + (k - 1)^2`` products of n x n matrices,
    n the larger number of channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: must divide ``kernel_size``.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps; with a stride, one without a common divisor.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        orthogonalise: how matrices are orthogonalised; ``onelip.layers.bjorck`` as in the paper.
        **options: ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: the stride does not divide the kernel, or has a common divisor with the
            dilation; groups that do not divide the channels.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = BCOPConv2d(4, 8, 3)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Li, Haque, Anil, Lucas, Grosse, Jacobsen, "Preventing gradient attenuation in
    Lipschitz constrained convolutional networks", NeurIPS 2019.
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
        plan = windowed_composition(
            self.group_channels, self.kernel_size, self.stride, self.dilation
        )
        self.compose(plan, orthogonalise, **placed(options))


class BCOPConv1d(ComposedKernel, ConstrainedConv1d):
    r"""``BCOPConv2d`` of sequences.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on lengths that
    the stride divides, the map is orthogonal (an isometry on the smaller side).
    Shape: ``(batch, in_channels, length)`` to ``(batch, out_channels, length / stride)``.
    Cost: a convolution, and per step ``k (k - 1) / 2`` products of n x n matrices.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: length of the kernel.
        stride: must divide ``kernel_size``.
        padding: as ``nn.Conv1d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels; a stride that does not divide the
            kernel, or has a common divisor with the dilation; in ``forward``, a length that the
            stride does not divide, under circular padding.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(BCOPConv1d(4, 8, 3)) - 1) < 1e-5)
        True

    Reference: Li, Haque, Anil, Lucas, Grosse, Jacobsen, "Preventing gradient attenuation in
    Lipschitz constrained convolutional networks", NeurIPS 2019.
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
        plan = windowed_composition(
            self.group_channels, self.kernel_size, self.stride, self.dilation
        )
        self.compose(plan, orthogonalise, **factory)
