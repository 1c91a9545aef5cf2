"""Adjoint of adaptive orthogonal convolutions (Boissin et al., 2025), which enlarges images."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.chains.linear_layers import transposed_convolution
from onelip.chains.value import Value
from onelip.layers.aoc import inner_channels, strided_kernel
from onelip.layers.bcop import by_group, projector_bases
from onelip.layers.constrained import check_channels, fill
from onelip.layers.options import FactoryOptions
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)
from onelip.norms.convolutions import pair


class AOCConvTranspose2d(OrthogonalLayer):
    r"""Transposed convolution: the adjoint of an orthogonal one of any kernel size and stride.

    Bound: the proved norm of the kernel, at most 1 up to rounding. The map is orthogonal where the
    kernel's size is the stride; otherwise pixels beyond the border are cut, as torch does.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, stride h, stride w)``.
    Cost: a transposed convolution, and per step that of BCOP's kernel on the output's channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: at most ``kernel_size``.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: a stride beyond the kernel, groups that do not divide, an even kernel of
            stride 1.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(AOCConvTranspose2d(8, 2, 2, stride=2)) - 1) < 1e-5)
        True

    Reference: Boissin et al., "An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures", ICML 2025.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = True,
        orthogonalise: Orthogonalise = cholesky_qr,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        if not 1 <= stride <= kernel_size:
            raise ValueError(f"stride must be from 1 to kernel_size={kernel_size}, got {stride}")
        check_channels(in_channels, out_channels, groups)
        if stride == 1 and kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd for stride 1, got {kernel_size}")
        self.kernel_size, self.stride, self.groups = kernel_size, stride, groups
        # chosen such that the output has stride times the sides of the input
        self.padding = (kernel_size - stride + 1) // 2
        self.output_padding = stride - kernel_size + 2 * self.padding
        self.orthogonalise = orthogonalise
        # torch stores the kernel of the adjoint: its rows are the channels of this layer's input
        self._rows, self._columns = in_channels // groups, out_channels // groups
        self._inner = inner_channels(self._columns, self._rows, kernel_size, stride)
        count = 2 * (kernel_size - stride)
        self.raw_matrix = tall(self._rows, self._inner * stride**2, count=groups, **factory)
        self.raw_bases = projector_bases(groups, count, self._inner, **factory)
        self.bias = nn.Parameter(torch.zeros(out_channels, **factory)) if bias else None

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        matrix = oriented(matrices[0], self._rows, self._inner * self.stride**2)
        bases = by_group(matrices[1], self.groups)
        return strided_kernel(matrix, bases, (self.stride, self.stride))[:, : self._columns]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the transposed convolution with the weight in use."""
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups
        )

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the kernel in use."""
        return norms.convolution(
            self.weight, padding=self.padding, stride=self.stride, groups=self.groups
        )

    def export(self) -> nn.ConvTranspose2d:
        """Return a plain transposed convolution."""
        plain = nn.ConvTranspose2d(
            self._rows * self.groups,
            self._columns * self.groups,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            bias=self.bias is not None,
            device="meta",
        )
        fill(plain, self.fixed_weight(), self.bias)
        return plain

    def to_chain(self, value: Value) -> Value:
        """Read the layer as the adjoint of the convolution with the kernel in use."""
        return transposed_convolution(
            value,
            self.weight,
            self.bias,
            stride=pair(self.stride),
            padding=pair(self.padding),
            output_padding=pair(self.output_padding),
            groups=self.groups,
            dilation=(1, 1),
        )
