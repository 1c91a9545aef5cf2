"""Adjoint of adaptive orthogonal convolutions (Boissin et al., 2025), which enlarges images."""

from typing import Unpack

from onelip.layers.block_convolution import ComposedKernel, Composition, windows_side_by_side
from onelip.layers.options import FactoryOptions, Size
from onelip.layers.orthogonal import Orthogonalise, cholesky_qr
from onelip.layers.transposed_convolution import ConstrainedConvTranspose2d


class AOCConvTranspose2d(ComposedKernel, ConstrainedConvTranspose2d):
    r"""Transposed convolution: the adjoint of an orthogonal one.

    Bound: the proved norm of the kernel, at most 1 up to rounding. Without ``padding`` no pixel is
    cropped, and the map is an isometry if ``in_channels <= out_channels stride^2`` (per group;
    with a stride beyond the kernel k, or a common divisor h with the dilation,
    ``out_channels min(k, stride / h)^2``). Otherwise it enlarges too little to be one, and its
    norm is at most 1. ``padding`` crops what the windows at the border wrote outside, as torch
    does: images that are zero near the border keep their length, others lose up to all of what lies
    there, and the bound stays. With ``kernel_size`` equal to the stride nothing lies outside.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h', w')``, with ``h' =
    (h - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1``; ``stride h`` for
    ``padding=None``.
    Cost: a transposed convolution, and per step that of BCOP's kernel on the output's channels.

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
        ValueError: groups that do not divide, paddings that torch refuses, ``padding=None`` for an
            even kernel of stride 1.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(AOCConvTranspose2d(8, 2, 2, stride=2)) - 1) < 1e-5)
        True

    Reference: Boissin et al., "An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures", ICML 2025.
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
        window = windows_side_by_side(self.kernel_size, self.stride, self.dilation)
        plan = Composition.adaptive(*self.group_channels, self.kernel_size, window)
        self.compose(plan, orthogonalise, **factory)
