r"""Block reflector orthogonal layers (Lai, Huang, Lin, ICML 2025).

A free matrix V of few columns gives the block reflector

.. math:: W = I - 2 V (V^H V)^{-1} V^H ,

minus the identity on the span of V and the identity on its orthogonal complement: unitary and
Hermitian. It is cheap, since the linear system has the size of the rank only. Layers that change
the number of features use the first rows or columns of the reflector on the larger side. A
convolution does this for each frequency of the symbol of a small kernel V.

Linearly dependent or vanishing columns must not blow up: with
:math:`P = V (V^H V + \delta I)^{-1} V^H` for some units of rounding :math:`\delta`, and columns of
length 1, the eigenvalues p of P are between 0 and 1. The reflector is made of :math:`2 P - P^2`,
with eigenvalues :math:`1 - (1 - p)^2`: still between 0 and 1, and wrong by the square of the error
that :math:`\delta` causes.
"""

from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.layers.constrained import ConstrainedLinear
from onelip.layers.fourier_layer import FourierConv2d, at_least_single
from onelip.layers.options import FactoryOptions, LayerOptions, Size, placed

_SHIFT = 2  # delta in units of rounding per column


def block_reflector(vectors: Tensor, rows: int, columns: int) -> Tensor:
    r"""Return the first rows and columns of :math:`I - 2 V (V^H V)^{-1} V^H`, in batches.

    Shape: ``(..., features, rank)``, real or complex, to ``(..., rows, columns)``.
    Cost: ``4 features rank^2 + rows columns rank`` multiplications, at most.

    Example:
        >>> block_reflector(torch.tensor([[2.0], [0.0]]), 2, 2).round()
        tensor([[-1.,  0.],
                [ 0.,  1.]])
    """
    # up to delta the reflector depends on the span only: lengths need no gradient
    lengths = torch.linalg.vector_norm(vectors.detach(), dim=-2, keepdim=True)
    unit = vectors / lengths.clamp_min(torch.finfo(vectors.dtype).tiny)
    rank, epsilon = unit.shape[-1], torch.finfo(unit.dtype).eps
    eye = torch.eye(unit.shape[-2], dtype=unit.dtype, device=unit.device)
    small = eye[:rank, :rank]
    factor = torch.linalg.cholesky_ex(unit.mH @ unit + _SHIFT * rank * epsilon * small).L
    basis = torch.linalg.solve_triangular(factor.mH, unit, upper=True, left=False)
    # 2 P - P^2 instead of P: see the module's docstring
    polished = basis[..., :rows, :] @ (2 * small - basis.mH @ basis)
    reflector: Tensor = eye[:rows, :columns] - 2 * polished @ basis[..., :columns, :].mH
    return reflector


def default_rank(features: int, rank: int | None) -> int:
    """Return the rank: half of the features if none is given.

    Raises:
        ValueError: a rank below 1, or above the number of features.
    """
    rank = max(1, features // 2) if rank is None else rank
    if not 1 <= rank <= features:
        raise ValueError(f"rank must be between 1 and {features}, got {rank}")
    return rank


class BROLinear(ConstrainedLinear):
    r"""``W x + b`` with W the first rows or columns of a block reflector.

    Bound: the proved norm of W; 1 up to rounding. W is orthogonal if it is square; else its rows or
    columns, whichever are fewer, are orthonormal.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: ``4 n rank^2 + n m rank`` multiplications, n the larger side and m the smaller one.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        rank: columns of V, of n features; n // 2 by default.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: the rank is not between 1 and n.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(BROLinear(8, 4)) - 1) < 1e-4)
        True

    Reference: Lai, Huang, Lin, "Enhancing certified robustness via block reflector orthogonal
    layers and logit annealing loss", ICML 2025.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rank: int | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        features = max(in_features, out_features)
        self.rank = default_rank(features, rank)
        free = torch.randn(features, self.rank, **factory)
        self.raw_weight = nn.Parameter(free / features**0.5)

    @override
    def compute_weight(self) -> Tensor:
        vectors = at_least_single(self.raw_weight)
        reflector = block_reflector(vectors, self.out_features, self.in_features)
        return reflector.to(self.raw_weight.dtype)


class BROConv2d(FourierConv2d):
    r"""Orthogonal convolution: the block reflector of a small kernel's symbol, per frequency.

    The kernel that results has the size of the image. Padding is circular.

    Bound: the proved norm of the largest block; 1 up to rounding. The map is orthogonal (an
    isometry on the smaller side).
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: per step, ``h w / (2 stride^2)`` complex block reflectors; two Fourier transforms and one
    product per frequency.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the free kernel; one larger than the image wraps around.
        stride: must divide ``kernel_size`` and ``image_size``; it is invertible downsampling
            followed by a kernel of ``kernel_size / stride``.
        image_size: height and width of the input.
        rank: columns of V, of n rows, n the larger side of a block; n // 2 by default.
        **options: ``bias``, ``device`` and ``dtype``, see ``options.LayerOptions``.

    Raises:
        ValueError: the stride does not divide, or the rank is not between 1 and n; in ``forward``,
            an image of another size.

    Example:
        >>> import onelip
        >>> layer = BROConv2d(4, 8, 3, image_size=6)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-4)
        True

    Reference: Lai, Huang, Lin, "Enhancing certified robustness via block reflector orthogonal
    layers and logit annealing loss", ICML 2025.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        image_size: int | tuple[int, int],
        rank: int | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, image_size=image_size, **options
        )
        features = max(self.block_shape)
        self.rank = default_rank(features, rank)
        kernel = torch.randn(features, self.rank, self.taps, self.taps, **placed(options))
        self.raw_weight = nn.Parameter(kernel / (features**0.5 * self.taps))

    @override
    def blocks(self, symbols: Tensor) -> Tensor:
        return block_reflector(symbols, *self.block_shape)
