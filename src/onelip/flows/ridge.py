r"""Ridge potentials: input-convex networks of one layer (Meunier et al., 2022, section 4.1).

.. math:: f(x) = \sum_i \phi(w_i^T x + b_i), \qquad \nabla f(x) = W^T \sigma(W x + b)

with :math:`\sigma = \phi'` non-decreasing. For slopes in an interval [l, s] the differences of the
gradient are :math:`W^T D W (x - z)`, D diagonal in [l, s]: the curvature lies between
:math:`l\, \lambda_{\min}(W^T W)` and :math:`s \|W\|^2`.
"""

import abc
import math
from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.activations import primitive, slopes
from onelip.flows.eigenvalue import least_eigenvalue
from onelip.flows.potential import Potential
from onelip.layers.constrained import check_channels
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.gradient_step import mirrored, norm_bound
from onelip.layers.options import FactoryOptions, Size, square
from onelip.layers.same_size import applied, checked_image_size
from onelip.norms.rounding import downward, upward


class RidgePotential(Potential):
    """Base of the dense and the convolutional ridge potential."""

    image_size: tuple[int, int] | None = None
    padding_mode: str = "zeros"

    def __init__(self, weight: Tensor, activation: nn.Module | None) -> None:
        super().__init__()
        self.activation = nn.ReLU() if activation is None else activation
        if slopes(self.activation)[0] < 0:
            raise ValueError(f"{self.activation} decreases somewhere: its potential is not convex")
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_empty(weight.shape[0]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as ``nn.Linear`` and ``nn.Conv2d`` do."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        limit = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.bias, -limit, limit)

    def inner(self, x: Tensor) -> Tensor:
        """Return ``W x + b``."""
        check_image_size(x, self.image_size)
        return applied(x, self.weight, self.bias, self.padding_mode)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``W^T y``."""
        return applied(y, mirrored(self.weight), None, self.padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``sum_i phi(w_i x + b_i)``; the gradient does not need phi."""
        return primitive(self.activation, self.inner(x)).flatten(1).sum(1)

    @override
    def gradient(self, x: Tensor) -> Tensor:
        return self.adjoint(self.activation(self.inner(x)))

    def smoothness(self) -> Tensor:
        """Proved upper bound of ``s |W|^2``, s the largest slope."""
        norm = norm_bound(self.weight, self.image_size, self.padding_mode)
        return upward(norm.square() * slopes(self.activation)[1], 2)

    @override
    def convexity(self) -> Tensor:
        low = slopes(self.activation)[0]
        if low <= 0:  # a learned slope may turn negative: ``curvature`` refuses it
            return torch.tensor(low, dtype=torch.float64)
        return downward(low * self.least_eigenvalue(), 1)

    @abc.abstractmethod
    def least_eigenvalue(self) -> Tensor:
        """Proved lower bound of the smallest eigenvalue of ``W^T W``."""


class RidgeLinear(RidgePotential):
    r"""Dense ridge potential, ``sum_i phi(w_i x + b_i)``.

    Bound: ``l lambda_min(W^T W)`` and ``s |W|^2`` for slopes of the activation in ``[l, s]``.
    Shape: ``(batch, features)`` to ``(batch,)``.
    Cost: one product with W; two for the gradient.

    Args:
        features: size of the input.
        hidden_features: rows of W.
        activation: non-decreasing; ``nn.ReLU()`` by default.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: the activation decreases somewhere, or a size is not positive.
        UnboundedModuleError: the slopes of the activation are not known.

    Example:
        >>> potential = RidgeLinear(2, 3)
        >>> potential.gradient(torch.zeros(5, 2)).shape
        torch.Size([5, 2])

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022.
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        *,
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        check_channels(features, hidden_features, 1)
        super().__init__(torch.empty(hidden_features, features, **factory), activation)

    @override
    def least_eigenvalue(self) -> Tensor:
        return least_eigenvalue(self.weight)


class RidgeConv2d(RidgePotential):
    r"""Convolutional ridge potential.

    Bound: 0 and ``s |W|^2``, s the largest slope of the activation.
    Shape: ``(batch, channels, height, width)`` to ``(batch,)``.
    Cost: one convolution; two for the gradient.

    Args:
        channels: channels of the input.
        hidden_channels: rows of W.
        kernel_size: odd.
        image_size: height and width of the images for which the norm is proved.
        padding_mode: ``"zeros"``, the default of residual layers, or ``"circular"``.
        activation: non-decreasing; ``nn.ReLU()`` by default.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an even kernel, one that wraps around the image, a decreasing activation; in
            ``gradient``, an image of another size.
        UnboundedModuleError: another padding mode, or an activation whose slopes are not known.

    Example:
        >>> potential = RidgeConv2d(1, 2, image_size=4)
        >>> potential(torch.zeros(3, 1, 4, 4)).shape
        torch.Size([3])

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        kernel_size: Size = 3,
        *,
        image_size: int | tuple[int, int],
        padding_mode: str = "zeros",
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        check_channels(channels, hidden_channels, 1)
        kernel_size = square(kernel_size, "kernel_size")
        self.image_size = checked_image_size(kernel_size, image_size, padding_mode)
        self.padding_mode = padding_mode
        weight = torch.empty(hidden_channels, channels, kernel_size, kernel_size, **factory)
        super().__init__(weight, activation)

    @override
    def least_eigenvalue(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)
