r"""Proved bounds of the curvature of the logit differences of a two-layer head.

For :math:`z(y) = V \phi(W y + b) + c` and second derivatives of :math:`\phi` in :math:`[s, t]`, the
Hessian of :math:`z_l - z_i` is :math:`W^T \mathrm{diag}(d \phi'') W` with :math:`d = v_l - v_i`. It
lies above :math:`-W^T \mathrm{diag}(u) W` with :math:`u = \max(-d s, -d t, 0)`, and so above minus
the squared norm of :math:`\mathrm{diag}(\sqrt u) W` (Singla, Feizi, ICML 2020, equation 8). Power
iterations approach that norm from below; here it is proved.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from onelip.activations import second_derivatives
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, UNIT, exact, frobenius, upward

_NUMBERS_AT_ONCE = 2**24


@dataclass(frozen=True)
class TwoLayers:
    """Two-layer head ``outer phi(inner y + inner_bias) + outer_bias``, exact numbers in float64.

    Attributes:
        inner: ``(hidden, features)``.
        inner_bias: ``(hidden,)``.
        activation: phi, elementwise.
        outer: ``(classes, hidden)``.
        outer_bias: ``(classes,)``.
    """

    inner: Tensor
    inner_bias: Tensor
    activation: nn.Module
    outer: Tensor
    outer_bias: Tensor

    @classmethod
    def of(cls, inner: nn.Linear, activation: nn.Module, outer: nn.Linear) -> Self:
        """Copy the weights of two linear layers with an activation between them.

        Raises:
            NonFiniteError: a weight is infinite or NaN.
        """
        return cls(*_numbers(inner), activation, *_numbers(outer))

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits ``(batch, classes)`` of features ``(batch, features)``."""
        hidden = self.activation(features @ self.inner.mT + self.inner_bias)
        scores: Tensor = hidden @ self.outer.mT + self.outer_bias
        return scores

    @property
    def classes(self) -> int:
        """Number of logits."""
        return len(self.outer)


class Curvature:
    """Proved bounds of the curvature of logit differences, each computed on first use.

    ``curvature(first, second)`` bounds the downward curvature of ``z_first - z_second``: numbers
    N >= 0 with ``Hessian(z_first - z_second) >= -N I`` everywhere. ``curvature(second, first)``
    bounds the upward curvature of the same difference.

    Cost: for each pair, once, about ``3 features^2 hidden`` multiplications in float64 and one
    symmetric eigenvalue problem of size ``min(features, hidden)``.

    Args:
        head: the two layers.

    Raises:
        UnboundedModuleError: the derivative of the activation is not continuous.

    Example:
        >>> head = TwoLayers.of(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))
        >>> bool((Curvature(head)(torch.tensor([0, 0]), torch.tensor([1, 2])) > 0).all())
        True
    """

    def __init__(self, head: TwoLayers) -> None:
        self.head = head
        self.interval = second_derivatives(head.activation)
        size = (head.classes, head.classes)
        self._known = torch.full(size, math.nan, dtype=torch.float64).fill_diagonal_(0.0)
        self._sides: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the bounds of pairs of classes, ``(pairs,)`` float64 on the CPU."""
        first, second = first.cpu(), second.cpu()
        pairs = torch.stack([first, second], 1)[self._known[first, second].isnan()].unique(dim=0)
        if len(pairs):
            rows = self.head.outer[pairs]
            self._known[pairs[:, 0], pairs[:, 1]] = self._prove(rows[:, 0] - rows[:, 1])
        return self._known[first, second]

    @torch.no_grad()
    def rough(self, first: Tensor, second: Tensor) -> Tensor:
        """Return looser bounds of pairs, from two proofs per class.

        With m the mean of the rows of ``outer``, ``u(v_l - v_i) <= u(v_l - m) + u(m - v_i)``.
        """
        if self._sides is None:
            centred = self.head.outer - self.head.outer.mean(0)
            self._sides = self._prove(centred), self._prove(-centred)
        first, second = first.cpu(), second.cpu()
        sums = upward(self._sides[0][first] + self._sides[1][second], 1)
        return torch.fmin(sums, self._known[first, second])

    @property
    def proved_pairs(self) -> int:
        """Number of ordered pairs proved so far."""
        return int((~self._known.isnan()).sum()) - self.head.classes

    def _prove(self, differences: Tensor) -> Tensor:
        """Prove bounds for rows d, each entry rounded once."""
        bend = torch.stack([-differences * end for end in self.interval]).amax(0).clamp_min(0)
        roots = upward(
            # Not below the exact roots: the norm of diag(root) W is monotone in the roots.
            upward(bend + UNDERFLOW, 3).sqrt(),
            1,
        )
        at_once = max(1, _NUMBERS_AT_ONCE // self.head.inner.numel())
        return torch.cat([self._squared_norms(part) for part in roots.split(at_once)]).cpu()

    def _squared_norms(self, roots: Tensor) -> Tensor:
        """Squared spectral norms of ``diag(root) W``, rounded upwards."""
        matrices = roots[:, :, None] * self.head.inner
        error = upward(2 * UNIT * frobenius(matrices), 2)  # one product per entry
        return upward(each(matrices, error).square(), 1)


def _numbers(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Copy the weight and the bias of a layer to float64."""
    weight = exact(layer.weight).clone()  # training may go on
    bias = weight.new_zeros(len(weight)) if layer.bias is None else exact(layer.bias).clone()
    return weight, bias
