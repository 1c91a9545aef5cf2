r"""Layer-wise orthogonal training (Xu, Li, Li, NeurIPS 2022).

Each block of the spectrum is :math:`W (W^H W)^{-1/2}` (on the smaller side), the unitary factor of
the block W of a small kernel's symbol. The paper finds the root by a coupled Newton iteration,
:math:`Y \leftarrow \frac12 Y (3 I - Z Y)` and :math:`Z \leftarrow \frac12 (3 I - Z Y) Z` from
:math:`Y = W^H W,\ Z = I`. The products :math:`X = W Z` follow
:math:`X \leftarrow \frac12 X (3 I - X^H X)`, the same matrices from two products instead of three;
and rounding in X is corrected by the next step, where that in Z is not.

Singular values s go to :math:`s (3 - s^2) / 2`, which rises to 1 from below and stays there. They
are scaled to at most 1 first, so a block that has not converged has norm below 1, not above.
"""

from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.layers.constrained import orthogonal_
from onelip.layers.fourier_layer import FourierConv2d
from onelip.layers.options import LayerOptions, Size, placed


def unitary_factor(matrices: Tensor, iterations: int) -> Tensor:
    r"""Iterate towards the unitary factor by Newton and Schulz's method, in batches.

    Matrices are divided by :math:`|W^H W|_F^{1/2}` first, which is at least the norm and closer to
    it than :math:`|W|_F`.

    Shape: ``(..., rows, columns)``, real or complex, to the same.
    Cost: ``2 n m^2`` multiplications an iteration, m the smaller side.

    Example:
        >>> q = unitary_factor(torch.tensor([[3.0, 1.0], [4.0, 0.0]]), 12)
        >>> (q.T @ q).allclose(torch.eye(2), atol=1e-5)
        True
    """
    if matrices.shape[-2] < matrices.shape[-1]:
        return unitary_factor(matrices.mT, iterations).mT
    tiny = torch.finfo(matrices.dtype).tiny
    length = torch.linalg.vector_norm(matrices.detach(), dim=(-2, -1), keepdim=True)
    result: Tensor = matrices / length.clamp_min(tiny)  # the squares of small numbers would vanish
    # |W^H W|_F is the root of the sum of s^4, at least the largest s^2; and at most |W|_F^2
    square = torch.linalg.vector_norm(result.mH @ result, dim=(-2, -1), keepdim=True)
    result = result / square.clamp_min(tiny).sqrt()
    for _ in range(iterations):
        result = 1.5 * result - result @ (result.mH @ result) / 2
    return result


class LOTConv2d(FourierConv2d):
    r"""Orthogonal convolution: the unitary factor of a small kernel's symbol, per frequency.

    The free kernel starts as an orthogonal matrix at its centre, so that all singular values of
    all blocks are equal and the iteration converges fast. The kernel that results has the size of
    the image. Padding is circular.

    Bound: the proved norm of the largest block as the iterations left it; at most 1 up to rounding.
    Once they have converged the map is orthogonal (an isometry on the smaller side).
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: per step, ``h w / (2 stride^2)`` times ``iterations`` times two complex products of
    ``n m^2``, m the smaller side of a block; two Fourier transforms and one product per frequency.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the free kernel; one larger than the image wraps around.
        stride: must divide ``kernel_size`` and ``image_size``; it is invertible downsampling
            followed by a kernel of ``kernel_size / stride``.
        image_size: height and width of the input.
        iterations: steps of Newton and Schulz's method. Each multiplies small singular values by
            1.5 until they are near 1; then the error is squared.
        **options: ``bias``, ``device`` and ``dtype``, see ``options.LayerOptions``.

    Raises:
        ValueError: the stride does not divide, or there are no iterations; in ``forward``, an image
            of another size.

    Example:
        >>> import onelip
        >>> layer = LOTConv2d(4, 8, 3, image_size=6)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Xu, Li, Li, "LOT: Layer-wise orthogonal training on improving l2 certified
    robustness", NeurIPS 2022.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        image_size: int | tuple[int, int],
        iterations: int = 10,
        **options: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, image_size=image_size, **options
        )
        if iterations < 1:
            raise ValueError(f"iterations must be positive, got {iterations}")
        self.iterations = iterations
        centre = (self.taps - 1) // 2
        kernel = torch.zeros(*self.block_shape, self.taps, self.taps, **placed(options))
        orthogonal_(kernel[:, :, centre, centre])
        self.raw_weight = nn.Parameter(kernel)

    @override
    def blocks(self, symbols: Tensor) -> Tensor:
        return unitary_factor(symbols, self.iterations)
