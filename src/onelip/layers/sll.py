r"""SDP-based Lipschitz layers (Araujo, Havens, Delattre, Allauzen, Hu, ICLR 2023).

The layer is :math:`x - 2 W^T T \sigma(W x + b)` with :math:`T_i = (\sum_j |W W^T|_{ij}\, q_j / q_i)
^{-1}` for any :math:`q > 0`. Then :math:`T^{-1} - W W^T` is diagonally dominant after scaling by
q, hence positive semidefinite, and :math:`K = (2 T)^{1/2} W` has :math:`\|K\|^2 \le 2`. Where the
activation is positively homogeneous, :math:`\sigma(r z) = r\, \sigma(z)` for r > 0, the layer is
the gradient step

.. math:: x - K^T \sigma(K x + c), \qquad c = (2 T)^{1/2} b ,

of step size 1: 1-Lipschitz for slopes in [0, 1]. With slopes up to s the 2 becomes 2 / s.

The same q stands in the numerator and in the denominator; the proof holds for any q > 0, so q may
be clamped. A constant is added to the diagonal of :math:`|W W^T|`, which makes T smaller. (The code
that was published first added one to q in the denominator only: T was too large for small q.)
"""

import abc
import copy
import math
from collections.abc import Sequence
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.activations import is_homogeneous, slopes, steepest
from onelip.chains.value import Value
from onelip.layers.constrained import ComputedOnce, full_precision
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.gradient_step import (
    GradientStep,
    gradient_step_bound,
    gradient_step_chain,
    mirrored,
    norm_bound,
    norm_bound_once_rounded,
)
from onelip.layers.options import FactoryOptions, Size, square
from onelip.layers.same_size import applied
from onelip.lipschitz import overridable
from onelip.norms.convolutions import check_padding_mode, pair
from onelip.norms.rounding import downward

_EPSILON = 1e-12  # added to the squared lengths of rows
Rows = tuple[Tensor, Tensor]  # K and c


def row_scales(gram: Tensor, log_q: Tensor) -> Tensor:
    r"""Compute :math:`T^{1/2}` from the absolute values of :math:`W W^T`; finite for rows of zeros.

    Example:
        >>> row_scales(torch.tensor([[4.0, 0.0], [0.0, 0.25]]), torch.tensor([0.0, 5.0]))
        tensor([0.5000, 2.0000])
    """
    least = torch.finfo(gram.dtype).tiny ** 0.5
    # T depends on ratios of q only: the largest is scaled to 1 against overflow
    q = (log_q - log_q.detach().max()).exp().clamp_min(least)
    inverse: Tensor = (gram @ q + max(_EPSILON, least) * q) / q
    return inverse.rsqrt()


class SLL(ComputedOnce):
    """Base of the dense and the convolutional SLL layer."""

    image_size: tuple[int, int] | None = None
    padding_mode: str = "zeros"
    _held: Rows | None = None

    def __init__(self, weight: Tensor, activation: nn.Module | None) -> None:
        super().__init__()
        self.activation = nn.ReLU() if activation is None else activation
        if not is_homogeneous(self.activation) or slopes(self.activation)[0] < 0:
            raise ValueError(
                f"{self.activation} decreases or does not scale: use ReLU, LeakyReLU or PReLU, or "
                "a Convex Potential layer, which takes any activation that does not decrease"
            )
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_empty(weight.shape[0]))
        self.log_q = nn.Parameter(weight.new_empty(weight.shape[0]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights with Xavier's variance, and set q to 1."""
        nn.init.xavier_normal_(self.weight)
        limit = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.bias, -limit, limit)
        nn.init.zeros_(self.log_q)

    @abc.abstractmethod
    def absolute_gram(self) -> Tensor:
        """Return ``|W W^T|``; for a convolution, summed over the taps of its Gram kernel."""

    def rows(self) -> Rows:
        """Return the K and c in use."""
        return self.compute_rows() if self._held is None else self._held

    def compute_rows(self) -> Rows:
        """Compute K and c from the parameters, never in half precision."""
        with full_precision(self.weight):
            # K = (2 T / s)^(1/2) W: |K|^2 <= 2 / s is what a step of size 1 needs
            longest = (2 / steepest(self.activation)) ** 0.5
            scale = row_scales(self.absolute_gram(), self.log_q) * longest
            return (scale * self.weight.movedim(0, -1)).movedim(-1, 0), scale * self.bias

    @overridable
    def batch_key(self) -> object:
        """Key of the layers that compute together; a layer computes alone."""
        return id(self)

    @classmethod
    def begin(cls, layers: Sequence[Self]) -> None:
        """Compute K and c once."""
        for layer in layers:
            layer._held = layer.compute_rows()

    def end(self) -> None:
        """Compute K and c anew from now on."""
        self._held = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - K^T activation(K x + c)``."""
        check_image_size(x, self.image_size)
        weight, bias = self.rows()
        hidden = self.activation(applied(x, weight, bias, self.padding_mode))
        return x - applied(hidden, mirrored(weight), None, self.padding_mode)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound ``max(1, s |K|^2 - 1)`` with the K in use and s the largest slope."""
        norm = norm_bound(self.rows()[0], self.image_size, self.padding_mode)
        return gradient_step_bound(torch.ones(()), norm, slopes(self.activation))

    @torch.no_grad()
    def export(self) -> GradientStep:
        """Return K and c, computed in float64, scaled down to the proved limit and rounded once."""
        dtype, twin = self.weight.dtype, copy.deepcopy(self).double()
        weight, bias = twin.compute_rows()
        factor = self._proved_factor(weight, dtype).to(weight.device)
        return GradientStep(
            (factor * weight).to(dtype),
            (factor * bias).to(dtype),
            copy.deepcopy(self.activation),
            None,
            image_size=self.image_size,
            padding_mode=self.padding_mode,
        )

    def _proved_factor(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Factor of K, 1 or a little less, for which the layer is proved 1-Lipschitz.

        A margin is left for rounding K, and for a second proof whose bound is larger by 1e-8.
        """
        norm = norm_bound_once_rounded(weight, self.image_size, self.padding_mode, dtype)
        longest = math.sqrt(2 / slopes(self.activation)[1]) * (1 - 1e-8)
        return downward(longest / norm, 8).clamp_max(1)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the K in use and the constant that it proves."""
        weight, bias = self.rows()
        return gradient_step_chain(self, value, weight, bias, weight.new_ones(()))


class SLLLinear(SLL):
    r"""Dense SDP-based Lipschitz layer, ``x - 2 W^T T activation(W x + b)``.

    Bound: ``max(1, s |K|^2 - 1)``, s the largest slope of the activation and K the scaled W; 1 up
    to rounding, and 1 after ``export``.
    Shape: ``(*, features)`` to the same.
    Cost: two products with W, and ``hidden_features^2 features`` multiplications a step.

    Args:
        features: size of input and output.
        hidden_features: rows of W.
        activation: ReLU (the default), LeakyReLU or PReLU: its slopes s >= 0 shorten the step.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an activation that decreases or does not scale.

    Example:
        >>> import onelip
        >>> onelip.lipschitz_bound(onelip.export(SLLLinear(8, 16)))
        tensor(1., dtype=torch.float64)

    Reference: Araujo et al., "A unified algebraic perspective on Lipschitz neural networks", 2023.
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        *,
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(torch.empty(hidden_features, features, **factory), activation)

    @override
    def absolute_gram(self) -> Tensor:
        return (self.weight @ self.weight.T).abs()


class SLLConv2d(SLL):
    r"""Convolutional SDP-based Lipschitz layer, ``x - 2 W^T T activation(W x + b)``.

    Bound: ``max(1, s |K|^2 - 1)``, s the largest slope of the activation and K the scaled kernel;
    1 up to rounding, and 1 after ``export``, which shortens K by as much.
    Shape: ``(batch, channels, height, width)`` to the same.
    Cost: two convolutions, and about ``4 k^4 hidden_channels^2 channels`` multiplications a step.

    Args:
        channels: channels of input and output.
        hidden_channels: rows of W; 5 in the paper.
        kernel_size: odd.
        image_size: size of the images for which the bound is proved; None for every size.
        padding_mode: ``"zeros"``, the default of residual layers, or ``"circular"``.
        activation: ReLU (the default), LeakyReLU or PReLU: its slopes s >= 0 shorten the step.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an even kernel, an activation that decreases or does not scale; in ``forward``,
            an image of another size.
        UnboundedModuleError: another padding mode.

    Example:
        >>> import onelip
        >>> onelip.lipschitz_bound(onelip.export(SLLConv2d(4, 6, 3)))
        tensor(1., dtype=torch.float64)

    Reference: Araujo et al., "A unified algebraic perspective on Lipschitz neural networks", 2023.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        kernel_size: Size = 3,
        *,
        image_size: int | tuple[int, int] | None = None,
        padding_mode: str = "zeros",
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        check_padding_mode(padding_mode)
        kernel_size = square(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the image's size, got {kernel_size}")
        self.image_size = None if image_size is None else pair(image_size)
        if self.image_size and kernel_size // 2 > min(self.image_size):
            raise ValueError(f"a kernel of {kernel_size} wraps around an image of {image_size}")
        self.padding_mode = padding_mode
        weight = torch.empty(hidden_channels, channels, kernel_size, kernel_size, **factory)
        super().__init__(weight, activation)

    @override
    def absolute_gram(self) -> Tensor:
        reach = self.weight.shape[-1] - 1
        # absolute row sums of the Gram matrix; under padding some taps are missing: smaller sums
        return F.conv2d(self.weight, self.weight, padding=reach).abs().sum((2, 3))
