r"""Adaptive orthogonal convolutions (Boissin, Mamalet, Fel, Picard, Massena, Serrurier, ICML 2025).

A strided orthogonal kernel of any size k >= s is composed of two: a BCOP kernel of size k - s + 1
and stride 1, and after it a reshaped orthogonal matrix of size s and stride s, whose windows do
not overlap. Block convolution makes one plain kernel of size k and stride s of them. Groups and
dilation act on each alike, and the adjoint is the transposed convolution.
"""

import itertools
from typing import Any, Unpack

from torch import Tensor
from typing_extensions import override

from onelip.layers.bcop import block_kernel, by_group, projector_bases
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions, placed
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)


def inner_channels(inputs: int, outputs: int, kernel_size: int, stride: int) -> int:
    """Channels of the inner BCOP kernel: at least 2, as projectors have rank ``channels / 2``."""
    needed = inputs if stride > 1 else max(inputs, outputs)
    return needed if kernel_size == stride else max(needed, 2)


def strided_kernel(
    matrix: Tensor, bases: Tensor, strides: tuple[int, ...], axes: tuple[int, ...] = (1, 2)
) -> Tensor:
    """Kernel of a BCOP convolution followed by a strided matrix.

    Args:
        matrix: ``(groups, out, n strides)``.
        bases: as in ``block_kernel``.
        strides: along each axis.
        axes: as in ``block_kernel``.

    Returns:
        ``(groups out, n, *taps)``.
    """
    outputs, count = matrix.shape[1], len(strides)
    # one H for each tap of the strided matrix, stacked as rows
    rows = matrix.unflatten(2, (-1, *strides)).movedim(2, -1).flatten(1, -2)
    taps = block_kernel(rows, bases, axes, dimensions=count)
    if all(stride == 1 for stride in strides):
        return taps.flatten(0, 1)
    spread = taps.unflatten(1, (outputs, -1))
    lengths = taps.shape[3:]
    sides = [n + s - 1 for n, s in zip(lengths, strides, strict=True)]
    kernel = taps.new_zeros(len(matrix), outputs, taps.shape[2], *sides)
    # a tap of the strided matrix shifts the BCOP kernel by its place: the product of the two maps
    for i, place in enumerate(itertools.product(*map(range, strides))):
        window: Any = [slice(u, u + n) for u, n in zip(place, lengths, strict=True)]
        kernel[(..., *window)] += spread[:, :, i]
    return kernel.flatten(0, 1)


class AOCConv2d(OrthogonalLayer, ConstrainedConv2d):
    r"""Orthogonal convolution of any kernel size, stride up to it, groups and dilation.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on images whose
    sides the stride divides, the map is orthogonal (an isometry on the smaller side), from 2
    channels per group on.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and per step that of BCOP's kernel on the input's channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: at most ``kernel_size``.
        orthogonalise: how matrices are orthogonalised.
        **options: ``padding``, ``padding_mode``, ``dilation``, ``groups``, ``bias``,
            ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``; no
            dilation with a stride.

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
        stride: int = 1,
        *,
        orthogonalise: Orthogonalise = cholesky_qr,
        **options: Unpack[Conv2dOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, **options)
        if stride > kernel_size or (stride > 1 and self.dilation > 1):
            raise ValueError(
                f"a stride of {stride} needs kernel_size >= stride and dilation=1, got "
                f"{kernel_size} and {self.dilation}: pixels between the windows would be lost"
            )
        self.orthogonalise = orthogonalise
        inputs, outputs = self.group_channels
        self._inner = inner_channels(inputs, outputs, kernel_size, stride)
        groups, count, factory = self.groups, 2 * (kernel_size - stride), placed(options)
        self.raw_matrix = tall(outputs, self._inner * stride**2, count=groups, **factory)
        self.raw_bases = projector_bases(groups, count, self._inner, **factory)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        inputs, outputs = self.group_channels
        matrix = oriented(matrices[0], outputs, self._inner * self.stride**2)
        bases = by_group(matrices[1], self.groups)
        # dropping input channels keeps the norm at most 1
        return strided_kernel(matrix, bases, (self.stride, self.stride))[:, :inputs]
