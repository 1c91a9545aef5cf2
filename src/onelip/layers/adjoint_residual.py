r"""Residual block of an orthogonal layer: a gradient step whose matrix needs no norm in training.

:math:`x - \tfrac{2}{s} W^T \sigma(W x + b)` is 1-Lipschitz if :math:`|W| \le 1` and the slopes of
the activation are in [0, s] (Meunier et al., 2022). Any layer of norm 1 gives a block: of AOC it is
the block of orthogonium, and between two strided AOC convolutions a step that changes the size.
"""

import copy

import torch
from torch import Tensor, nn

from onelip.activations import slopes, steepest
from onelip.chains.value import Value
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear, PowerSteps
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.gradient_step import (
    GradientStep,
    gradient_step_bound,
    gradient_step_chain,
    longest_step,
    mirrored,
    norm_bound,
)
from onelip.layers.same_size import applied
from onelip.lipschitz import LipschitzModule


class AdjointResidual(LipschitzModule):
    r"""``x - (2 / s) W^T activation(W x + b)``, W the weight of another layer.

    A block that changes the size or the channels is a sequence of three: ``AOCConv2d(c, d, 3,
    stride=2)``, this one or ``SLLConv2d(d, d)``, and ``AOCConv2d(d, d, 3)``.

    Bound: ``max(1, 2 |W|^2 - 1)`` with the proved norm of W: up to rounding 1, for orthogonal
    layers; 1 after ``export``, which shortens the step where it must.
    Shape: ``(batch, ...)`` to the same.
    Cost: two calls of the layer, with one computation of its weight.

    Args:
        layer: a ``ConstrainedLinear``, or a ``ConstrainedConv2d`` with an odd square kernel and the
            default padding, without stride, dilation and groups; such as ``CholeskyLinear``,
            ``AOCConv2d``, ``BCOPConv2d``.
        activation: non-decreasing; ``nn.ReLU()`` by default.

    Raises:
        ValueError: another layer, or an activation that decreases.

    Example:
        >>> import onelip
        >>> layer = AdjointResidual(onelip.layers.AOCConv2d(4, 4, 3))
        >>> onelip.lipschitz_bound(onelip.export(layer))
        tensor(1., dtype=torch.float64)

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022.
    """

    image_size: tuple[int, int] | None = None
    padding_mode: str = "zeros"

    def __init__(self, layer: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = nn.ReLU() if activation is None else activation
        if slopes(self.activation)[0] < 0:
            raise ValueError(f"{self.activation} decreases: a gradient step would stretch")
        if isinstance(layer, ConstrainedConv2d):
            kernel, _ = layer.kernel_size
            plain = (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
            keeps = layer.padding == "same" or layer.padding == (kernel // 2, kernel // 2)
            if not plain or layer.kernel_size != (kernel, kernel) or kernel % 2 == 0 or not keeps:
                raise ValueError(
                    f"{layer} has no mirrored adjoint: an odd square kernel with padding=None, and "
                    "no stride, dilation or groups"
                )
            self.image_size, self.padding_mode = layer.image_size, layer.padding_mode
        elif not isinstance(layer, ConstrainedLinear):
            raise ValueError(f"{type(layer).__name__} is no dense layer or convolution with a norm")
        if isinstance(layer, PowerSteps):
            raise ValueError(
                f"{type(layer).__name__} estimates its norm in its own forward pass: its block "
                "is ConvexPotentialConv2d"
            )
        self.layer = layer

    def step(self, like: Tensor) -> Tensor:
        """Step size in use, ``2 / s``, in the dtype and on the device of a tensor."""
        return torch.as_tensor(2 / steepest(self.activation)).to(like)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - (2 / s) W^T activation(W x + b)``."""
        check_image_size(x, self.image_size)
        weight, bias = self.layer.weight, self.layer.bias
        hidden = self.activation(applied(x, weight, bias, self.padding_mode))
        return x - applied(self.step(hidden) * hidden, mirrored(weight), None, self.padding_mode)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring, with the step and weight in use."""
        weight = self.layer.weight
        norm = norm_bound(weight, self.image_size, self.padding_mode)
        return gradient_step_bound(self.step(weight), norm, slopes(self.activation))

    @torch.no_grad()
    def export(self) -> GradientStep:
        """Return plain modules with fixed weights and a step that is proved short enough."""
        weight = self.layer.fixed_weight()
        norm = norm_bound(weight, self.image_size, self.padding_mode)
        longest = longest_step(norm, slopes(self.activation), weight)
        bias = self.layer.bias
        return GradientStep(
            weight,
            weight.new_zeros(len(weight)) if bias is None else bias,
            copy.deepcopy(self.activation),
            torch.minimum(self.step(weight), longest),
            image_size=self.image_size,
            padding_mode=self.padding_mode,
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the weight in use and the constant that it proves."""
        weight = self.layer.weight
        return gradient_step_chain(self, value, weight, self.layer.bias, self.step(weight))
