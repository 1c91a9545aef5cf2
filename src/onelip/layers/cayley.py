r"""Layers by the Cayley transform (Trockman, Kolter, ICLR 2021).

For a skew-Hermitian A the matrix :math:`(I - A)(I + A)^{-1}` is unitary. A tall free matrix is
split into a square part U and the rows V below it; with :math:`A = U - U^H + V^H V`,

.. math:: Q = \begin{pmatrix} (I - A)(I + A)^{-1} \\ -2 V (I + A)^{-1} \end{pmatrix}

has orthonormal columns, since :math:`(I - A)^H (I - A) + 4 V^H V = (I + A)^H (I + A)`. The
Hermitian part of :math:`I + A` is at least I, so that it is never singular. A convolution does this
for each frequency of the symbol of a small kernel.

The free weight is :math:`g\, W / |W|_F` with a learned length g, as in the paper. Here g exists
from construction, equal to the initial :math:`|W|_F`, so that an optimizer finds it.
"""

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.layers.accretive_inverse import accretive_inverse
from onelip.layers.constrained import ConstrainedLinear
from onelip.layers.fourier_layer import FourierConv2d, at_least_single
from onelip.layers.options import FactoryOptions, LayerOptions, Size, placed


def cayley(matrices: Tensor) -> Tensor:
    """Map free matrices to orthonormal columns (rows, if the matrix is wide), in batches.

    Shape: ``(..., rows, columns)``, real or complex, to the same.
    Cost: one inverse on the smaller side m, and two products of ``rows m^2`` multiplications.

    Example:
        >>> q = cayley(torch.tensor([[3.0, 1.0], [4.0, 0.0], [1.0, 2.0]]))
        >>> (q.T @ q).allclose(torch.eye(2), atol=1e-6)
        True
    """
    rows, columns = matrices.shape[-2:]
    if rows < columns:
        return cayley(matrices.mT).mT
    square, rest = matrices[..., :columns, :], matrices[..., columns:, :]
    eye = torch.eye(columns, dtype=matrices.dtype, device=matrices.device)
    # I + A has Hermitian part I + V^H V, at least I: accretive, and never singular
    twice = 2 * accretive_inverse(eye + square - square.mH + rest.mH @ rest)
    # (I - A)(I + A)^{-1} = 2 (I + A)^{-1} - I
    result: Tensor = torch.cat([twice - eye, -rest @ twice], -2)
    return result


def of_length(matrices: Tensor, weight: Tensor, length: Tensor) -> Tensor:
    """The weight scaled to a length; 0 stays 0."""
    norm = torch.linalg.vector_norm(weight).clamp_min(torch.finfo(weight.dtype).tiny)
    result: Tensor = length * (matrices / norm)
    return result


class CayleyLinear(ConstrainedLinear):
    r"""``Q x + b`` with Q the Cayley transform of a free matrix.

    Bound: the proved norm of Q; 1 up to rounding. Its rows or columns, whichever are fewer, are
    orthonormal.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: one inverse on the smaller side m, and two products of ``n m^2`` multiplications.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        **factory: ``device`` and ``dtype`` of the parameters.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(CayleyLinear(8, 4)) - 1) < 1e-5)
        True

    Reference: Trockman, Kolter, "Orthogonalizing convolutional layers with the Cayley transform",
    ICLR 2021.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.raw_weight = nn.Parameter(torch.empty(out_features, in_features, **factory))
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))
        self.length = nn.Parameter(self.raw_weight.detach().norm())

    @override
    def compute_weight(self) -> Tensor:
        raw = at_least_single(self.raw_weight)
        return cayley(of_length(raw, raw, self.length)).to(self.raw_weight.dtype)


class CayleyConv2d(FourierConv2d):
    r"""Orthogonal convolution: the Cayley transform of a small kernel's symbol, per frequency.

    The kernel that results has the size of the image. Padding is circular.

    Bound: the proved norm of the largest block; 1 up to rounding. The map is orthogonal (an
    isometry on the smaller side).
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: per step, ``h w / (2 stride^2)`` complex inverses on the smaller side of a block; two
    Fourier transforms and one product per frequency.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the free kernel; one larger than the image wraps around.
        stride: must divide ``kernel_size`` and ``image_size``; it is invertible downsampling
            followed by a kernel of ``kernel_size / stride``.
        image_size: height and width of the input.
        **options: ``bias``, ``device`` and ``dtype``, see ``options.LayerOptions``.

    Raises:
        ValueError: the stride does not divide; in ``forward``, an image of another size.

    Example:
        >>> import onelip
        >>> layer = CayleyConv2d(4, 8, 3, image_size=6)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Trockman, Kolter, "Orthogonalizing convolutional layers with the Cayley transform",
    ICLR 2021.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        image_size: int | tuple[int, int],
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, image_size=image_size, **options
        )
        shape = (*self.block_shape, self.taps, self.taps)
        self.raw_weight = nn.Parameter(torch.empty(shape, **placed(options)))
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))
        self.length = nn.Parameter(self.raw_weight.detach().norm())

    @override
    def blocks(self, symbols: Tensor) -> Tensor:
        return cayley(of_length(symbols, at_least_single(self.raw_weight), self.length))
