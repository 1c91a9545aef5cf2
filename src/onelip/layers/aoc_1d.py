"""Adaptive orthogonal convolution of sequences (Boissin et al., ICML 2025); see ``aoc.py``."""

from typing import Unpack

from onelip.layers.aoc import orthogonal_composition
from onelip.layers.block_convolution import ComposedKernel
from onelip.layers.convolution_1d import ConstrainedConv1d, Length
from onelip.layers.options import FactoryOptions
from onelip.layers.orthogonal import Orthogonalise, cholesky_qr


class AOCConv1d(ComposedKernel, ConstrainedConv1d):
    r"""Orthogonal convolution of sequences, of any shape for which one exists.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on lengths that
    the stride divides, the map is orthogonal (an isometry on the smaller side).
    Shape: ``(batch, in_channels, length)`` to ``(batch, out_channels, length / stride)``.
    Cost: a convolution, and per step ``k (k - 1) / 2`` products of n x n matrices.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: length k of the kernel.
        stride: step of the window; ``AOCConv2d`` says where pixels are skipped.
        padding: as ``nn.Conv1d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: no orthogonal kernel of this shape exists; groups that do not divide; in
            ``forward``, a length that the stride does not divide, under circular padding.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(AOCConv1d(4, 8, 3, stride=2)) - 1) < 1e-5)
        True

    Reference: Boissin et al., "An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures", ICML 2025.
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
        plan = orthogonal_composition(
            self.group_channels, self.kernel_size, self.stride, self.dilation
        )
        self.compose(plan, orthogonalise, **factory)
