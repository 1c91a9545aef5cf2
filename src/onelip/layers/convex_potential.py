r"""Convex Potential layers (Meunier, Delattre, Araujo, Allauzen, ICML 2022).

A gradient step on a convex function is a contraction if the step is short enough. The function is
:math:`\sum_i \phi(w_i^T x + b_i)`, convex and :math:`s \|W\|^2`-smooth where
:math:`\sigma = \phi'` is non-decreasing with slopes up to s, so the layer

.. math:: z = x - h\, W^T \sigma(W x + b)

has Lipschitz constant at most :math:`\max(1, h s \|W\|^2 - 1)`: 1 for :math:`h \le 2 / (s \|W\|^2)`
(Proposition 3). In training h comes from one warm-started power iteration (Algorithm 1), an
estimate from below, so h may be too long. The bound of a layer therefore uses a proved norm and the
step in use, and ``export`` caps the step size at the proved limit.
"""

import abc
import copy
import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.activations import is_homogeneous, slopes, steepest
from onelip.chains.value import Value
from onelip.estimates import leading_direction, usable
from onelip.layers.constrained import PowerSteps, full_precision
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.gradient_step import (
    GradientStep,
    gradient_step_bound,
    gradient_step_chain,
    longest_step,
    mirrored,
    norm_bound,
    norm_bound_once_rounded,
)
from onelip.layers.options import FactoryOptions, Size, square
from onelip.layers.same_size import applied, checked_image_size, convolve
from onelip.lipschitz import overridable

_EPSILON = 1e-4  # added to the squared norm, so that the step is too short rather than too long
_WARM_UP = 20  # power iterations at construction


class ConvexPotential(PowerSteps):
    """Base of the dense and the convolutional Convex Potential layer."""

    own_power_steps = True  # see onelip.layers.computed_once
    direction: Tensor
    image_size: tuple[int, int] | None = None
    padding_mode: str = "zeros"

    @abc.abstractmethod
    def __init__(
        self,
        weight: Tensor,
        direction: Tensor,
        activation: nn.Module | None,
        step: float | None,
    ) -> None:
        super().__init__()
        self.activation = nn.ReLU() if activation is None else activation
        low, _ = slopes(self.activation)
        if low < 0:
            raise ValueError(f"{self.activation} decreases somewhere: its potential is not convex")
        if step is not None and not step > 0:
            raise ValueError(f"step must be positive, got {step}; None keeps the layer 1-Lipschitz")
        self.fixed_step = step
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(weight.new_empty(weight.shape[0]))
        self.register_buffer("direction", direction)
        self.forget()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights as ``nn.Linear`` and ``nn.Conv2d`` do, and warm up the power iteration."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        limit = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.bias, -limit, limit)
        nn.init.normal_(self.direction)
        self.power_step(_WARM_UP)

    def inner(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``W x + b``."""
        return applied(x, self.weight, bias, self.padding_mode)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``W^T y``."""
        return applied(y, mirrored(self.weight), None, self.padding_mode)

    def norm_bound(self) -> Tensor:
        """Proved bound of the spectral norm of W."""
        return norm_bound(self.weight, self.image_size, self.padding_mode)

    def power_step(self, iterations: int = 1) -> None:
        """Move ``direction`` closer to the leading singular vector of W, even if W has not changed.

        It stays as it is if W maps it to 0 or overflows: it could not recover from there.
        """
        with torch.no_grad(), full_precision(self.weight):
            moved = leading_direction(
                self.inner, self.adjoint, self.direction, iterations=iterations
            )
            self.direction.copy_(torch.where(usable(moved), moved, self.direction))

    def stepped_weight(self) -> Tensor:
        """Return W."""
        return self.weight

    @torch.no_grad()
    def advance(self) -> None:
        """Take one power step, if W has changed since the last one."""
        with full_precision(self.weight):
            self._update_direction(
                leading_direction(self.inner, self.adjoint, self.direction, iterations=1)
            )

    def _update_direction(self, moved: Tensor) -> None:
        """Take over a new direction, if W has changed and the direction is usable."""
        # a mask instead of a branch: no device has to be waited for
        turning = self.changed() & usable(moved)
        self.direction.copy_(torch.where(turning, moved, self.direction))

    @overridable
    def batch_key(self) -> object:
        """Key of the layers that take power steps together; by default a layer steps alone."""
        return id(self)

    @classmethod
    def begin(cls, layers: Sequence["ConvexPotential"]) -> None:
        """Take one power step in each layer in training mode, and no further one until ``end``."""
        moving = [layer for layer in layers if layer.training and layer.fixed_step is None]
        if moving:
            moving[0].advance_together(moving)
        for layer in moving:
            layer.own_power_steps = False

    def end(self) -> None:
        """Take power steps in ``forward`` again."""
        self.own_power_steps = True

    @overridable
    def advance_together(self, layers: Sequence["ConvexPotential"]) -> None:
        """Take one power step in each of ``layers``, of this key, whose weight has changed."""
        for layer in layers:
            layer.advance()

    def step(self) -> Tensor:
        """Step size h in use: ``2 / (s (estimate^2 + 1e-4))`` or a fixed one."""
        if self.fixed_step is not None:
            return self.weight.new_tensor(self.fixed_step)
        with full_precision(self.weight):
            # |W u|^2 of a unit vector u is never above |W|^2; clone: u may move before backward
            square = self.inner(self.direction.clone()).square().sum()
            return 2 / (steepest(self.activation) * (square + _EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - h W^T activation(W x + b)``; in training mode, after one power step."""
        check_image_size(x, self.image_size)
        if self.training and self.fixed_step is None and self.own_power_steps:
            self.advance()
        hidden = self.activation(self.inner(x, self.bias))
        return x - self.adjoint(self.step().to(hidden.dtype) * hidden)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound ``max(1, h s norm^2 - 1)`` with the step in use and a proved norm."""
        return gradient_step_bound(self.step(), self.norm_bound(), slopes(self.activation))

    def export(self) -> GradientStep:
        """Return plain modules, with a fixed step size capped at the proved limit.

        With a positively homogeneous activation, such as ReLU, the root of the step goes into the
        weights.
        """
        step, root = self.proved_step(), None
        if is_homogeneous(self.activation):
            root = step.double().sqrt()
        return GradientStep(
            _scale(self.weight, root),
            _scale(self.bias, root),
            copy.deepcopy(self.activation),
            step if root is None else None,
            image_size=self.image_size,
            padding_mode=self.padding_mode,
        )

    def proved_step(self) -> Tensor:
        """Step size in use, capped at the proved limit ``2 / (s |W|^2)``.

        A margin is left for rounding ``sqrt(step) W`` to the precision of W.
        """
        step = self.step().detach()
        if self.fixed_step is not None:
            return step  # a relaxed layer stays relaxed, and its bound says so
        dtype = self.weight.dtype
        norm = norm_bound_once_rounded(self.weight, self.image_size, self.padding_mode, dtype)
        return torch.minimum(step, longest_step(norm, slopes(self.activation), step))

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the weight and step in use and the constant it proves."""
        return gradient_step_chain(self, value, self.weight, self.bias, self.step())


class ConvexPotentialLinear(ConvexPotential):
    r"""Dense Convex Potential layer, ``x - h W^T activation(W x + b)``.

    Bound: ``max(1, h s |W|^2 - 1)``, s the largest slope of the activation; 1 after ``export``.
    Shape: ``(*, features)`` to the same.
    Cost: two products with W, and three matrix-vector products for the step.

    Args:
        features: size of input and output.
        hidden_features: rows of W.
        activation: non-decreasing, 1-Lipschitz or not; ``nn.ReLU()`` by default.
        step: a fixed h instead of ``2 / |W|^2`` (appendix D.2); the layer may then stretch.
        **factory: ``device`` and ``dtype`` of parameters and buffers.

    Raises:
        ValueError: the activation decreases somewhere, or the step is not positive.
        UnboundedModuleError: the slopes of the activation are not known.

    Example:
        >>> import onelip
        >>> layer = ConvexPotentialLinear(8, 16)
        >>> onelip.lipschitz_bound(onelip.export(layer))
        tensor(1., dtype=torch.float64)

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022.
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        *,
        activation: nn.Module | None = None,
        step: float | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        weight = torch.empty(hidden_features, features, **factory)
        super().__init__(weight, torch.empty(features, **factory), activation, step)


class ConvexPotentialConv2d(ConvexPotential):
    r"""Convolutional Convex Potential layer, ``x - h W^T activation(W x + b)``.

    Bound: ``max(1, h s |W|^2 - 1)``, s the largest slope of the activation; 1 after ``export``.
    Shape: ``(batch, channels, height, width)`` to the same.
    Cost: two convolutions, and three on a single image for the step.

    Args:
        channels: channels of input and output.
        hidden_channels: rows of W; 5 in the paper.
        kernel_size: odd.
        image_size: height and width of the images for which the norm is proved.
        padding_mode: ``"zeros"``, the default of residual layers, or ``"circular"``.
        activation: non-decreasing, 1-Lipschitz or not; ``nn.ReLU()`` by default.
        step: a fixed h instead of ``2 / |W|^2`` (appendix D.2); the layer may then stretch.
        **factory: ``device`` and ``dtype`` of parameters and buffers.

    Raises:
        ValueError: an even kernel, a decreasing activation, a step that is not positive; in
            ``forward``, an image of another size.
        UnboundedModuleError: another padding mode, or an activation whose slopes are not known.

    Example:
        >>> import onelip
        >>> layer = ConvexPotentialConv2d(4, 6, 3, image_size=8)
        >>> onelip.lipschitz_bound(onelip.export(layer))
        tensor(1., dtype=torch.float64)

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
        step: float | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        kernel_size = square(kernel_size, "kernel_size")
        self.image_size = height, width = checked_image_size(kernel_size, image_size, padding_mode)
        self.padding_mode = padding_mode
        weight = torch.empty(hidden_channels, channels, kernel_size, kernel_size, **factory)
        direction = torch.empty(1, channels, height, width, **factory)
        super().__init__(weight, direction, activation, step)

    @override
    def batch_key(self) -> object:
        weight = self.weight
        place = (weight.dtype, weight.device)
        return type(self), weight.shape, *place, self.image_size, self.padding_mode

    @override
    def advance_together(self, layers: Sequence[ConvexPotential]) -> None:
        if len(layers) == 1:
            return self.advance()
        with torch.no_grad(), full_precision(self.weight):
            # one grouped convolution steps all layers at once
            weights = torch.stack([layer.weight for layer in layers])
            mirrored = weights.flip(3, 4).transpose(1, 2).flatten(0, 1)
            directions = torch.cat([layer.direction for layer in layers], 1)
            mode, groups = self.padding_mode, len(layers)
            images = convolve(directions, weights.flatten(0, 1), None, mode, groups)
            back = convolve(_unit_groups(images, groups), mirrored, None, mode, groups)
            parts = _unit_groups(back, groups).chunk(groups, 1)
            for layer, moved in zip(layers, parts, strict=True):
                layer._update_direction(moved)
        return None


def _scale(parameter: Tensor, factor: Tensor | None) -> Tensor:
    """Multiply a parameter by a float64 factor, rounded once."""
    return parameter if factor is None else (factor * parameter).to(parameter.dtype)


def _unit_groups(x: Tensor, groups: int) -> Tensor:
    """Scale each group of channels to length 1."""
    return F.normalize(x.reshape(groups, -1), eps=torch.finfo(x.dtype).tiny).reshape(x.shape)
