r"""Block convolution orthogonal parameterization (Li et al., NeurIPS 2019, Algorithm 1).

For a projector :math:`P = Q Q^T` the kernel :math:`[P,\ I - P]` of two taps is orthogonal: its
symbol :math:`P + e^{-i\omega}(I - P)` is unitary. BCOP composes an orthogonal matrix H with k - 1
such kernels along each axis, in turn, with projectors of rank n / 2.

Composition is a product of matrices over channels for each pair of taps (block convolution).
Multiplying a kernel X of T taps by :math:`[P,\ I - P]` needs only the T products
:math:`(X_t Q) Q^T`, since the other half is what is left of :math:`X_t`; no projector is ever
formed. A 3 x 3 kernel takes 13 products of n x n matrices, where a tree of log depth over formed
kernels takes 27 and more memory (``benchmarks/block_convolution.py``).
"""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions, FactoryOptions, placed
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)


def block_kernel(
    matrix: Tensor, bases: Tensor, axes: tuple[int, ...] = (1, 2), *, dimensions: int = 2
) -> Tensor:
    r"""Compose H with ``[Q Q^T, I - Q Q^T]`` for each basis, vertical and horizontal in turn.

    Args:
        matrix: H, ``(groups, out, n)``.
        bases: Q, ``(groups, count, n, rank)`` with orthonormal columns.
        axes: along which the two taps lie, in turn: of images, 1 is vertical, 2 horizontal.
        dimensions: axes of the kernel.

    Returns:
        A kernel ``(groups, out, n, *taps)``; orthogonal under circular padding if H is.
    """
    taps = (1,) * dimensions
    kernel: Tensor = matrix.unflatten(0, (-1, *taps))  # (groups, *taps, out, n)
    for i, basis in enumerate(bases.unbind(1)):
        columns = basis.unflatten(0, (-1, *taps))
        kept = (kernel @ columns) @ columns.mT  # X Q Q^T without forming the projector
        kernel = _shifted_sum(kept, kernel - kept, axis=axes[i % len(axes)])
    return kernel.movedim((-2, -1), (1, 2))


def _shifted_sum(kept: Tensor, moved: Tensor, axis: int) -> Tensor:
    """Add the taps of two kernels, the second shifted by one tap along an axis."""
    edge = torch.zeros_like(kept.narrow(axis, 0, 1))
    return torch.cat([kept, edge], axis) + torch.cat([edge, moved], axis)


def projector_bases(
    groups: int, count: int, channels: int, **factory: Unpack[FactoryOptions]
) -> nn.Parameter:
    """Free matrices for the bases of each group, of rank ``channels // 2``."""
    return tall(channels, channels // 2, count=groups * count, **factory)


def by_group(bases: Tensor, groups: int) -> Tensor:
    """Reshape a stack of bases, which may be empty, to ``(groups, count, n, rank)``."""
    grouped: Tensor = bases.unflatten(0, (groups, len(bases) // groups))
    return grouped


class BCOPConv2d(OrthogonalLayer, ConstrainedConv2d):
    r"""Orthogonal convolution by BCOP.

    A stride is invertible downsampling followed by a convolution of ``kernel_size / stride``, as in
    the paper, folded into one strided kernel. ``AOCConv2d`` strides without that restriction.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding the map is
    orthogonal (an isometry on the smaller side), from 2 channels per group on. For one channel,
    whose orthogonal kernels are shifts, and under zero padding it is 1-Lipschitz only.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution, and per step ``k^2 + (k - 1)^2`` products of n x n matrices,
    n the larger number of channels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: must divide ``kernel_size``.
        orthogonalise: how matrices are orthogonalised; ``onelip.layers.bjorck`` as in the paper.
        **options: ``padding``, ``padding_mode``, ``dilation``, ``groups``, ``bias``,
            ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``; no
            dilation with a stride.

    Raises:
        ValueError: the stride does not divide the kernel, or groups do not divide the channels.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = BCOPConv2d(4, 8, 3)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Li, Haque, Anil, Lucas, Grosse, Jacobsen, "Preventing gradient attenuation in
    Lipschitz constrained convolutional networks", NeurIPS 2019.
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
        if kernel_size % stride or (stride > 1 and self.dilation > 1):
            raise ValueError(
                f"a stride of {stride} needs a kernel_size that it divides and dilation=1, got "
                f"{kernel_size} and {self.dilation}: AOCConv2d takes any kernel_size >= stride"
            )
        self.orthogonalise = orthogonalise
        inputs, outputs = self.group_channels
        # at least 2 channels: a projector of rank n / 2 needs them
        self._inner = max(inputs * stride**2, outputs, 2)
        groups, count, factory = self.groups, 2 * (kernel_size // stride - 1), placed(options)
        self.raw_matrix = tall(outputs, self._inner, count=groups, **factory)
        self.raw_bases = projector_bases(groups, count, self._inner, **factory)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        inputs, outputs = self.group_channels
        matrix = oriented(matrices[0], outputs, self._inner)
        bases = by_group(matrices[1], self.groups)
        kernel = block_kernel(matrix, bases)[:, :, : inputs * self.stride**2].flatten(0, 1)
        # an unshuffled channel (c, u, v) is the tap (u, v) of channel c
        return F.pixel_shuffle(kernel, self.stride) if self.stride > 1 else kernel
