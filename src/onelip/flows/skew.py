r"""Skew-symmetric parts, whose flow keeps norms (Meunier et al., 2022, section 3).

A field whose Jacobian is skew-symmetric everywhere is linear (appendix C.1):
:math:`\dot x = A x` with :math:`A^T = -A`, and :math:`\frac{d}{dt} \|x\|^2 = 2 x^T A x = 0`.

Implicit schemes need the matrix of A, or its blocks over frequencies. For these a part returns the
``blocks`` of A, and ``act``, ``measure`` and ``plain`` take blocks of any function of A.
"""

import abc
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.errors import NotApplicableError
from onelip.layers import fourier_layer
from onelip.layers.constrained import check_channels, plain_linear
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.options import FactoryOptions, Size, square
from onelip.layers.same_size import checked_image_size, convolve
from onelip.layers.soc import skew
from onelip.lipschitz import refuse_inherited


class SkewPart(nn.Module, abc.ABC):
    """Base class of linear maps ``x -> A x`` with ``A^T = -A``.

    A subclass writes ``forward`` and ``norm``. The other methods are for implicit schemes.
    """

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return ``A x`` for each sample."""

    @abc.abstractmethod
    def norm(self) -> Tensor:
        """Proved upper bound of the norm of A: 0-d float64, rounded up."""

    def blocks(self) -> Tensor:
        """Return the diagonal blocks of A in some unitary basis, ``(..., n, n)``.

        Raises:
            NotApplicableError: the class has no blocks.
        """
        raise NotApplicableError(
            f"{type(self).__name__} has no blocks to solve with: ExactFlow needs none"
        )

    def act(self, x: Tensor, blocks: Tensor) -> Tensor:
        """Apply the map with the given blocks in place of those of A."""
        raise NotImplementedError

    def measure(self, blocks: Tensor) -> Tensor:
        """Proved norm of the map with the given blocks."""
        raise NotImplementedError

    def plain(self, blocks: Tensor) -> nn.Module:
        """Return a fixed module for the map with the given blocks."""
        raise NotImplementedError


def proved_norm(part: SkewPart) -> Tensor:
    """Proved norm of a skew part, as a 0-d float64 tensor on the CPU.

    Raises:
        UnboundedModuleError: the part inherits its proof from another one.
    """
    refuse_inherited(part, "norm")
    return part.norm().detach().to("cpu", torch.float64)


class SkewLinear(SkewPart):
    """``(M - M^T) x`` with a free square matrix M.

    Bound: the proved norm of ``M - M^T``.
    Shape: ``(*, features)`` to the same.
    Cost: one product with the matrix.

    Args:
        features: size of input and output.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: a size that is not positive.

    Example:
        >>> part, x = SkewLinear(4), torch.randn(4)
        >>> bool((part(x) @ x).abs() < 1e-5)
        True
    """

    def __init__(self, features: int, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features must be positive, got {features}")
        self.weight = nn.Parameter(torch.empty(features, features, **factory))
        nn.init.normal_(self.weight, std=(2 * features) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(M - M^T) x``."""
        return F.linear(x, self.blocks())

    def norm(self) -> Tensor:
        """The operation that the class docstring defines."""
        return norms.dense(self.blocks())

    @override
    def blocks(self) -> Tensor:
        return self.weight - self.weight.T

    @override
    def act(self, x: Tensor, blocks: Tensor) -> Tensor:
        return F.linear(x, blocks)

    @override
    def measure(self, blocks: Tensor) -> Tensor:
        return norms.dense(blocks)

    @override
    def plain(self, blocks: Tensor) -> nn.Linear:
        return plain_linear(blocks.detach(), None)


class SkewConv2d(SkewPart):
    """Convolution with a free kernel minus that of its adjoint.

    Bound: the proved norm on images of this size.
    Shape: ``(batch, channels, height, width)`` to the same.
    Cost: one convolution.

    Args:
        channels: channels of input and output.
        kernel_size: odd.
        image_size: height and width.
        padding_mode: ``"circular"``, the default, or ``"zeros"``, which leaves no blocks to solve
            with.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an even kernel, or one that wraps around the image; in ``forward``, an image of
            another size.
        UnboundedModuleError: another padding mode.

    Example:
        >>> part, x = SkewConv2d(2, 3, image_size=4), torch.randn(1, 2, 4, 4)
        >>> bool((part(x) * x).sum().abs() < 1e-4)
        True
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size = 3,
        *,
        image_size: int | tuple[int, int],
        padding_mode: str = "circular",
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        check_channels(channels, channels, 1)
        kernel_size = square(kernel_size, "kernel_size")
        self.image_size = checked_image_size(kernel_size, image_size, padding_mode)
        self.padding_mode = padding_mode
        shape = (channels, channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, **factory))
        nn.init.normal_(self.weight, std=(2 * channels * kernel_size**2) ** -0.5)

    def kernel(self) -> Tensor:
        """Return the skew kernel in use."""
        return skew(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the skew kernel in use."""
        check_image_size(x, self.image_size)
        return convolve(x, self.kernel(), None, self.padding_mode)

    def norm(self) -> Tensor:
        """The operation that the class docstring defines."""
        return norms.convolution(
            self.kernel(),
            image_size=self.image_size,
            padding=self.weight.shape[-1] // 2,
            padding_mode=self.padding_mode,
        )

    @override
    def blocks(self) -> Tensor:
        """Return one block for each frequency of the half spectrum.

        Raises:
            NotApplicableError: zero padding.
        """
        if self.padding_mode == "zeros":
            raise NotApplicableError(
                "a zero-padded convolution has no blocks to solve with: padding_mode='circular', "
                "or ExactFlow"
            )
        return fourier_layer.symbol(fourier_layer.at_least_single(self.kernel()), self.image_size)

    @override
    def act(self, x: Tensor, blocks: Tensor) -> Tensor:
        return fourier_layer.convolve(x, blocks, None, self.image_size, 1)

    @override
    def measure(self, blocks: Tensor) -> Tensor:
        return fourier_layer.spectrum_bound(blocks)

    @override
    def plain(self, blocks: Tensor) -> fourier_layer.FixedFourierConv2d:
        return fourier_layer.FixedFourierConv2d(blocks, None, image_size=self.image_size)
