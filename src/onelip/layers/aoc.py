r"""Adaptive orthogonal convolutions (Boissin, Mamalet, Fel, Picard, Massena, Serrurier, ICML 2025).

A strided orthogonal kernel of any size k >= s is composed of two: a BCOP kernel of size k - s + 1
and stride 1, and after it a reshaped orthogonal matrix of size s and stride s, whose windows do
not overlap. Block convolution makes one plain kernel of size k and stride s of them. Groups and
dilation act on each alike, and the adjoint is the transposed convolution. With one input channel,
on which no factor of BCOP can act, BCOP comes after the matrix (``block_convolution.py``).
"""

import math
from typing import Unpack

from onelip.layers.block_convolution import (
    ComposedKernel,
    Composition,
    reads_all,
    windows_side_by_side,
)
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions, Padding, Size, placed
from onelip.layers.orthogonal import Orthogonalise, cholesky_qr
from onelip.norms.convolutions import Pair


def orthogonal_composition(
    channels: Pair, kernel_size: Pair, stride: Pair, dilation: Pair
) -> Composition:
    """Return how an orthogonal kernel of one group is made.

    Raises:
        ValueError: no kernel of this shape is orthogonal.
    """
    window = windows_side_by_side(kernel_size, stride, dilation)
    (inputs, outputs), read = channels, math.prod(window)
    if outputs > inputs * read and not reads_all(stride, window):
        raise ValueError(
            f"no kernel is orthogonal for kernel_size={kernel_size}, stride={stride} and "
            f"dilation={dilation} from {inputs} to {outputs} channels (per group): it skips "
            f"pixels, and reads {inputs * read} independent numbers per output; take "
            f"at most {inputs * read} output channels, or a kernel and a dilation that read all"
        )
    return Composition.adaptive(inputs, outputs, kernel_size, window)


class AOCConv2d(ComposedKernel, ConstrainedConv2d):
    r"""Orthogonal convolution of any kernel size, stride, groups and dilation for which one exists.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on images whose
    sides the stride divides, the map is orthogonal (an isometry on the smaller side). From one
    channel to one without a stride, such a map is a shift: the kernel is 1 or -1 at its centre.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and per step that of BCOP's kernel on the input's channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: step of the window. Beyond the kernel, or with a common divisor h with the dilation,
            pixels are skipped, so that an orthogonal map has at most as many output channels as
            a window reads numbers: ``in_channels min(k, stride / h)^2`` per group.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        orthogonalise: how matrices are orthogonalised.
        **options: ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: no orthogonal kernel of this shape exists; groups that do not divide.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = AOCConv2d(4, 8, 3, stride=2)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
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
        plan = orthogonal_composition(
            self.group_channels, self.kernel_size, self.stride, self.dilation
        )
        self.compose(plan, orthogonalise, **placed(options))
