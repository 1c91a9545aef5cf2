"""Values and gradients of logit differences, with bounds of their rounding errors."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from onelip import norms
from onelip.activations import second_derivatives, slopes
from onelip.bounds.head_curvature import TwoLayers
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward

_ULPS = 64
"""Error of torch's activations and derivatives, in ulps of argument and value."""

Activation = Callable[[Tensor], Tensor]

_STEEP = 700.0
"""Softplus is evaluated as log(1 + exp(x)) up to here: as far as exp reaches in float64."""


class Tangent(NamedTuple):
    """Values and gradients of a logit difference at points, with error bounds, in float64.

    Attributes:
        value: ``(points,)``.
        error: ``(points,)``, bounds of the values' errors.
        gradient: ``(points, features)``.
        slack: ``(points,)``, bounds of the Euclidean norms of the gradients' errors.
    """

    value: Tensor
    error: Tensor
    gradient: Tensor
    slack: Tensor


class Differences:
    """Logit differences of a head, with bounds of all float64 errors.

    The errors hold for the activation itself and for torch's version of it: ``nn.Softplus`` returns
    its argument above a threshold.

    Args:
        head: the two layers.
        slack: added to every error of a logit or of a difference.

    Example:
        >>> head = TwoLayers.of(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))
        >>> pair = torch.tensor([0]), torch.tensor([2])
        >>> Differences(head).tangents(torch.zeros(1, 4).double(), *pair).gradient.shape
        torch.Size([1, 4])
    """

    def __init__(self, head: TwoLayers, slack: float = 0.0) -> None:
        self.head, self._slack = head, slack
        self._phi, self._gap = _evaluated(head.activation)
        self._slope = max(abs(end) for end in slopes(head.activation))
        self._bend = max(abs(end) for end in second_derivatives(head.activation))
        self._size = frobenius(head.inner)
        self._norm = norms.dense(head.inner).to(head.inner.device)
        self._shift = frobenius(head.inner_bias[:, None])
        self._rows = frobenius(head.outer[:, None])

    def layer(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden layer at ``(points, features)``, and the slopes of its activations."""
        return value_and_slope(self._phi, self._before(points))

    def logits(self, points: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return all logits from the hidden layer, and bounds of their errors."""
        scores = torch.addmm(self.head.outer_bias, hidden, self.head.outer.mT)
        rows, bias = self._rows[None], self.head.outer_bias.abs()[None]
        return scores, self._error(points, hidden, rows, bias)

    def values(self, points: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``z_first - z_second`` at each point, and bounds of the errors."""
        return self._difference(points, self._phi(self._before(points)), first, second)

    def tangents(
        self,
        points: Tensor,
        first: Tensor,
        second: Tensor,
        layer: tuple[Tensor, Tensor] | None = None,
    ) -> Tangent:
        """Return values and gradients of ``z_first - z_second`` at each point.

        Args:
            points: ``(points, features)``.
            first: ``(points,)``, a class.
            second: ``(points,)``, another.
            layer: ``layer(points)``, if it is known.
        """
        hidden, slope = self.layer(points) if layer is None else layer
        value, error = self._difference(points, hidden, first, second)
        gradient = ((self.head.outer[first] - self.head.outer[second]) * slope) @ self.head.inner
        # |v_l - v_i| <= |v_l| + |v_i|: one bound for all pairs.
        slack = upward((self._rows[first] + self._rows[second]) * self._turning(points), 2)
        return Tangent(value, error, gradient, slack)

    def steepness(self, points: Tensor, slope: Tensor, first: Tensor) -> Tensor:
        """Bound the gradients of ``z_first - z`` at each point for all z at once.

        With m the mean of the slopes, ``W^T (slope d)`` is ``W^T (m d)``, which is the same at all
        points, and a rest of norm ``|W| |(slope - m) d|`` at most.
        Cost: that of the logits of each point, and one gradient per class.
        """
        outer, mean = self.head.outer, slope.mean(0)
        shared = (outer * mean) @ self.head.inner
        shared = torch.stack([frobenius((row - shared)[:, None]) for row in shared])[first]
        rest = (slope - mean).square()
        own, others = (rest * outer[first].square()).sum(1)[:, None], rest @ outer.square().mT
        square = own + others - 2 * (rest * outer[first]) @ outer.mT
        # The expanded square cancels: its rounding is relative to the terms, not to the result.
        square = square.clamp_min(0) + 4 * gamma(slope.shape[1] + 8) * (own + others)
        rest = self._norm * (square + UNDERFLOW).sqrt()
        rows = self._rows[first][:, None] + self._rows
        return upward(shared + rest + 4 * rows * self._turning(points)[:, None], 8)

    def _before(self, points: Tensor) -> Tensor:
        """Compute the inputs of the activation."""
        return torch.addmm(self.head.inner_bias, points, self.head.inner.mT)

    def _turning(self, points: Tensor) -> Tensor:
        """Bound the error of the gradient of a sum over the hidden layer, per norm of weights."""
        relative = self._slope * (gamma(len(self.head.inner) + 8) + _ULPS * UNIT)
        moved = self._bend * gamma(points.shape[1] + 4) * self._reach(points)
        return upward(self._size * (relative + moved), 4)

    def _reach(self, points: Tensor) -> Tensor:
        """Bound the norm of the activation's inputs, and of the terms of their sums."""
        return upward(self._size * frobenius(points[:, None]) + self._shift, 8)

    def _difference(
        self, points: Tensor, hidden: Tensor, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the logit difference from the hidden layer, and bounds of its error."""
        outer, bias = self.head.outer, self.head.outer_bias
        value = ((outer[first] - outer[second]) * hidden).sum(1) + (bias[first] - bias[second])
        rows = self._rows[first] + self._rows[second]
        biases = bias[first].abs() + bias[second].abs()
        return value, self._error(points, hidden, rows[:, None], biases[:, None])[:, 0]

    def _error(self, points: Tensor, hidden: Tensor, rows: Tensor, biases: Tensor) -> Tensor:
        """Bound the errors of sums over the hidden layer, ``(points, sums)``."""
        terms = gamma(hidden.shape[1] + 8) + _ULPS * UNIT
        inside = self._slope * (gamma(points.shape[1] + 4) + _ULPS * UNIT) * self._reach(points)
        # Each hidden unit may be off by the gap: sqrt(n) times that in Euclidean norm.
        gap = self._gap * math.sqrt(hidden.shape[1])
        unit = inside + terms * frobenius(hidden[:, None]) + gap
        return upward(rows * unit[:, None] + terms * biases + self._slack, 8)


def value_and_slope(activation: Activation, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return an elementwise function and its derivative, in any mode of autograd."""
    with torch.inference_mode(False), torch.enable_grad():
        numbers = numbers.clone() if numbers.is_inference() else numbers.detach()
        value = activation(numbers.requires_grad_().clone())  # some work in place
        (slope,) = torch.autograd.grad(value, numbers, torch.ones_like(value))
    return value.detach(), slope


def _evaluated(activation: nn.Module) -> tuple[Activation, float]:
    """Return the activation as float64 computes it best, and its distance from torch's own."""
    if isinstance(activation, nn.Softplus):
        gap = math.log1p(math.exp(-activation.threshold)) / activation.beta * (1 + 8 * UNIT)
        return nn.Softplus(activation.beta, _STEEP), gap
    if isinstance(activation, nn.ELU | nn.CELU):
        gap = _ULPS * UNIT * activation.alpha  # exp(x) - 1 in some versions of torch
        alpha = activation.alpha  # whose own slope rounds alpha to float32
        return (lambda x: alpha * functional.elu(x / alpha)), gap
    return activation, 0.0
