r"""Explicit Euler steps, on a potential and on a skew part.

For a potential with curvature in :math:`[\mu, L]` the difference of two outputs of
:math:`x - h \nabla f(x)` is that of the inputs times :math:`I - h H`, H symmetric with eigenvalues
in :math:`[\mu, L]` (a mean of Hessians). Its norm is at most

.. math:: \max(1 - h \mu,\; h L - 1) ,

which is at most 1 for :math:`h \le 2 / L` (Proposition 3) and grows beyond.

On a skew part, :math:`I + h A` is normal with eigenvalues :math:`1 + i h \theta`: its norm is
:math:`\sqrt{1 + h^2 \|A\|^2}`, more than 1 for every A except 0. Hence the splitting.
"""

import copy

import torch
from torch import Tensor

from onelip.errors import NotApplicableError
from onelip.flows.potential import Potential, curvature
from onelip.flows.ridge import RidgeConv2d, RidgeLinear
from onelip.flows.skew import SkewPart, proved_norm
from onelip.flows.step import checked_step, rounded_down, step_of
from onelip.layers.gradient_step import GradientStep
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import downward, upward

_LONGEST = 2.0**14  # largest step size, for potentials that are flat
_ROOM = 1 + 1e-8  # margin for a second proof whose bound is larger than the first


def explicit_bound(step: Tensor, convexity: Tensor, smoothness: Tensor) -> Tensor:
    """Return ``max(1 - h mu, h L - 1)``, rounded up, for h > 0 and ``0 <= mu <= L``."""
    h = step.detach().to("cpu", torch.float64)
    # a negative 1 - h mu may be replaced by 0: h L - 1 is at least h mu - 1 then
    above = upward(1 - downward(h * convexity, 1), 1).clamp(0, 1)
    below = upward(h * smoothness, 1) - 1  # exact if at most 1: no rounding up needed
    return torch.maximum(above, upward(below, 1) if below > 1 else below)


def longest_step(potential: Potential, like: Tensor) -> Tensor:
    """Return the largest step size proved 1-Lipschitz, smaller than ``2 / L`` by 1e-8.

    Raises:
        NotApplicableError: the potential is not smooth.
    """
    _, smoothness = curvature(potential)
    if smoothness.isinf():
        raise NotApplicableError(
            f"{type(potential).__name__} proves no smoothness, so no explicit step is short enough:"
            " ImplicitEuler, if it has a closed form"
        )
    return rounded_down(downward(2 / (smoothness * _ROOM), 8).clamp(max=_LONGEST), like)


class ExplicitEuler(LipschitzModule):
    r"""``x - h grad f(x)``.

    Bound: ``max(1 - h mu, h L - 1)``, the curvature of f between mu and L: at most 1 for
    ``h <= 2 / L``. A given step is never shortened.
    Shape: that of the potential's gradient.
    Cost: one gradient. ``step=None`` proves L anew in every forward pass, as costly as asking for
    the bound, and lets no gradient through h. To train at scale on an estimate of L, use
    ``ConvexPotentialConv2d``; ``export`` fixes the step.

    Args:
        potential: f; its parameters are this layer's.
        step: h; None for the largest step size proved 1-Lipschitz, about ``2 / L``.

    Raises:
        ValueError: a step that is not positive.
        NotApplicableError: in ``forward``, no step is given and f is not smooth.

    Example:
        >>> import onelip
        >>> from onelip.flows import RidgeLinear
        >>> onelip.lipschitz_bound(ExplicitEuler(RidgeLinear(8, 16)))
        tensor(1., dtype=torch.float64)

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022,
    Proposition 3.
    """

    def __init__(self, potential: Potential, step: float | None = None) -> None:
        super().__init__()
        self.potential = potential
        self.fixed_step = None if step is None else checked_step(step)

    def step(self) -> Tensor:
        """Return the step size h in use."""
        if self.fixed_step is not None:
            return step_of(self, self.fixed_step)
        return longest_step(self.potential, step_of(self, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - h grad f(x)``."""
        return x - self.step() * self.potential.gradient(x)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return explicit_bound(self.step(), *curvature(self.potential))

    def export(self) -> LipschitzModule:
        """Return the layer with a fixed step; for a ridge potential, a plain ``GradientStep``."""
        step, potential = self.step(), copy.deepcopy(self.potential)
        if type(potential) is RidgeLinear or type(potential) is RidgeConv2d:
            return GradientStep(
                potential.weight,
                potential.bias,
                potential.activation,
                step,
                image_size=potential.image_size,
                padding_mode=potential.padding_mode,
            )
        return ExplicitEuler(potential, float(step) if self.fixed_step is None else self.fixed_step)

    def extra_repr(self) -> str:
        """Step size."""
        return f"step={self.fixed_step}"


class ExplicitEulerSkew(LipschitzModule):
    r"""``x + h A x``: a scheme of norm above 1, for comparison.

    Bound: ``sqrt(1 + h^2 |A|^2)``; attained up to rounding.
    Shape: that of the skew part.
    Cost: one call of the skew part.

    Args:
        skew: A; its parameters are this layer's.
        step: h.

    Raises:
        ValueError: a step that is not positive.

    Example:
        >>> import onelip
        >>> from onelip.flows import SkewLinear
        >>> bool(onelip.lipschitz_bound(ExplicitEulerSkew(SkewLinear(4))) > 1)
        True
    """

    def __init__(self, skew: SkewPart, step: float = 1.0) -> None:
        super().__init__()
        self.skew, self.fixed_step = skew, checked_step(step)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + h A x``."""
        turned: Tensor = self.skew(x)
        return x + step_of(self, self.fixed_step) * turned

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        reach = step_of(self, self.fixed_step).to("cpu", torch.float64) * proved_norm(self.skew)
        return upward((1 + reach.square()).sqrt(), 6)

    def extra_repr(self) -> str:
        """Step size."""
        return f"step={self.fixed_step}"
