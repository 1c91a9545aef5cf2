r"""Adaptive orthogonal convolutions (Boissin, Mamalet, Fel, Picard, Massena, Serrurier, ICML 2025).

A strided orthogonal kernel of any size k >= s is composed of two: a BCOP kernel of size k - s + 1
and stride 1, and behind it a reshaped orthogonal matrix of size s and stride s, whose windows do
not overlap. Block convolution makes one plain kernel of size k and stride s of them. Groups and
dilation act on each alike, and the adjoint is the transposed convolution.
"""

from torch import Tensor
from typing_extensions import override

from onelip.layers.bcop import block_kernel, projector_bases
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)


class AOCConv2d(OrthogonalLayer, ConstrainedConv2d):
    r"""Orthogonal convolution of any kernel size, stride up to it, groups and dilation.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on images whose
    sides the stride divides, the map is orthogonal (an isometry on the smaller side).
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and per step that of BCOP's kernel on the input's channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: at most ``kernel_size``.
        padding: as in ``nn.Conv2d``; None keeps the image's size (divided by the stride).
        padding_mode: ``"circular"`` or ``"zeros"``.
        dilation: distance of the taps; 1 with a stride.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        image_size: on which the bound is taken; None for every size.
        orthogonalise: how matrices are orthogonalised.

    Raises:
        ValueError: a stride beyond the kernel, or with dilation; groups that do not divide.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = AOCConv2d(4, 8, 3, stride=2)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Boissin et al., "An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures", ICML 2025.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | str | None = None,
        padding_mode: str = "circular",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        image_size: int | tuple[int, int] | None = None,
        orthogonalise: Orthogonalise = cholesky_qr,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            padding_mode=padding_mode,
            dilation=dilation,
            groups=groups,
            bias=bias,
            image_size=image_size,
        )
        if stride > kernel_size or (stride > 1 and dilation > 1):
            raise ValueError(
                f"a stride of {stride} needs kernel_size >= stride and dilation=1, got "
                f"{kernel_size} and {dilation}: pixels between the windows would be lost"
            )
        self.orthogonalise = orthogonalise
        inputs, outputs = self.group_channels
        self._inner = max(inputs, 2) if stride > 1 else max(inputs, outputs, 2)
        self.raw_matrix = tall(outputs, self._inner * stride**2, count=groups)
        self.raw_bases = projector_bases(groups, kernel_size - stride + 1, self._inner)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        inputs, outputs = self.group_channels
        stride, inner = self.stride, self._inner
        matrix = oriented(matrices[0], outputs, inner * stride**2)
        bases = matrices[1].unflatten(0, (self.groups, -1))
        # the strided matrix is one H for each of its taps, stacked as rows
        rows = matrix.unflatten(2, (inner, stride, stride)).permute(0, 1, 3, 4, 2)
        taps = block_kernel(rows.flatten(1, 3), bases)[:, :, :inputs]
        if stride == 1:
            return taps.flatten(0, 1)
        spread = taps.unflatten(1, (outputs, stride, stride))
        kernel = taps.new_zeros(self.groups, outputs, inputs, self.kernel_size, self.kernel_size)
        size = taps.shape[-1]
        for u in range(stride):
            for v in range(stride):
                kernel[..., u : u + size, v : v + size] += spread[:, :, u, v]
        return kernel.flatten(0, 1)
