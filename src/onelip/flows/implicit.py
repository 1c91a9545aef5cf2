r"""Implicit Euler steps on a potential: proximal steps (Meunier et al., 2022, appendix C.2).

:math:`y = x - h \nabla f(y)` has one solution, :math:`p(x)`, the minimiser of
:math:`\frac12 \|y - x\|^2 + h f(y)`, with Lipschitz constant :math:`1 / (1 + h \mu)`. Without a
closed form it is computed as the fixed point of

.. math:: y_{k+1} = T(y_k) + \tau x, \qquad T(y) = y - \tau (y + h \nabla f(y)) ,

and T is a gradient step on a function with curvature in :math:`[1 + h \mu, 1 + h L]`: for
:math:`\tau \le 2 / (2 + h (L + \mu))` its Lipschitz constant is
:math:`q = 1 - \tau (1 + h \mu) < 1`.

**Every iterate is 1-Lipschitz in x, not only the limit.** Let :math:`l_k` be the constant of
:math:`x \mapsto y_k`. From :math:`y_0 = x` we have :math:`l_0 = 1` and
:math:`l_{k+1} \le q\, l_k + \tau`. The fixed point of that recursion is
:math:`\tau / (1 - q) = 1 / (1 + h \mu)`, hence

.. math:: l_K \le \frac{1}{1 + h \mu} + q^K \frac{h \mu}{1 + h \mu} \le 1

for **every number of iterations that does not depend on x**. A stopping rule that depends on x
breaks this: where the number changes, the output jumps. Here the number follows from q: as
:math:`\|y_K - p\| \le q^K \|x - p\|`, a relative tolerance takes
:math:`K = \lceil \log(\mathrm{tolerance}) / \log q \rceil` steps, about
:math:`h L / 2` for each factor of e.

A posteriori, :math:`\|y - x + h \nabla f(y)\| \ge (1 + h \mu) \|y - p(x)\|` for any y, since the
left side is the gradient of a :math:`(1 + h \mu)`-convex function at y.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.errors import NotApplicableError, UnboundedModuleError
from onelip.flows.fixed_point import fixed_point
from onelip.flows.potential import Potential, curvature
from onelip.flows.step import checked_step, rounded_down, step_of
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import downward, upward

_MOST = 1000  # largest number of iterations
_LOWERED = 1 - 1e-6  # margin for weights that are rounded to float32 after a plan was fixed


class Plan(NamedTuple):
    """Plan of a fixed-point iteration: the relaxation tau, and the number of steps."""

    rate: float
    iterations: int


def implicit_bound(step: Tensor, convexity: Tensor) -> Tensor:
    """Return ``1 / (1 + h mu)``, rounded up."""
    h = step.detach().to("cpu", torch.float64)
    least = downward(h * convexity, 1).clamp(max=torch.finfo(torch.float64).max / 4)
    return upward(1 / (1 + least), 2).clamp(max=1)


class ImplicitEuler(LipschitzModule):
    r"""Proximal step: the solution y of ``y = x - h grad f(y)``.

    Bound: ``1 / (1 + h mu)`` in closed form, of the exact step; with K iterations of rate q, that
    plus ``q^K h mu / (1 + h mu)``. At most 1 for every convex f and every h.
    Shape: that of the potential's gradient.
    Cost: a closed form, or about ``log(1 / tolerance) h L / 2`` gradients; as many products with
    the Hessian for the backward pass, which keeps nothing but the output. Every forward pass proves
    L anew, as costly as asking for the bound; ``export`` fixes the plan that follows from L.

    Args:
        potential: f; its parameters are this layer's.
        step: h.
        tolerance: largest error of the output relative to the length of the exact step, and of the
            gradient relative to its own.
        plan: rate and number of iterations, instead of those that follow from L and the tolerance.
            Once the weights move, the bound still holds or is refused, but the tolerance may not.

    Raises:
        ValueError: a step or a plan that is not positive, or a tolerance not between 0 and 1.
        NotApplicableError: f has no closed form and is not smooth, or takes too many iterations.

    Example:
        >>> import onelip
        >>> from onelip.flows import RidgeLinear
        >>> layer = ImplicitEuler(RidgeLinear(8, 16), 3.0)
        >>> onelip.lipschitz_bound(layer)
        tensor(1., dtype=torch.float64)
        >>> x = torch.randn(5, 8)
        >>> bool((layer.residual(x, layer(x)) < 1e-4).all())
        True

    Reference: Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks", 2022,
    appendix C.2; it has no implementation there.
    """

    def __init__(
        self,
        potential: Potential,
        step: float,
        *,
        tolerance: float = 1e-6,
        plan: Plan | None = None,
    ) -> None:
        super().__init__()
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        if plan is not None and not (plan.rate > 0 and plan.iterations > 0):
            raise ValueError(f"rate and iterations must be positive, got {plan}")
        self.potential, self.fixed_step = potential, checked_step(step)
        self.tolerance, self.fixed_plan = tolerance, plan
        self.plan()

    def plan(self) -> Plan | None:
        """Plan that ``forward`` follows now; None for a closed form.

        Raises:
            NotApplicableError: the potential is not smooth, or takes too many iterations.
        """
        if self.fixed_plan is not None:
            return self.fixed_plan._replace(rate=float(step_of(self, self.fixed_plan.rate)))
        if self.potential.has_proximal:
            return None
        step = step_of(self, self.fixed_step)
        low, high = curvature(self.potential)
        h = step.to("cpu", torch.float64)
        # rounded down: the rate q is proved up to 2 / (2 + h (L + mu)) only
        rate = rounded_down(downward(_LOWERED * 2 / upward(2 + h * (low + high), 4), 3), step)
        shrinks = float(downward(rate.double().cpu() * (1 + h * low), 3))
        # 1 - q; log1p keeps its digits where q is close to 1
        wanted = 1.0 if shrinks >= 1 else math.inf
        # q = 0 needs one step; q = 1 means that no number of steps is proved to suffice
        if 0 < shrinks < 1:
            wanted = max(1.0, math.log(self.tolerance) / math.log1p(-shrinks))
        if wanted > _MOST:
            raise NotApplicableError(
                f"an implicit step h with h L = {float(h * high):.3g} takes too many iterations: a "
                "shorter step, several of them, a larger tolerance, or a potential with a closed "
                "form of proximal()"
            )
        return Plan(float(rate), math.ceil(wanted))

    def forward(self, x: Tensor) -> Tensor:
        """Return the solution y of ``y = x - h grad f(y)``, in closed form or by iteration."""
        plan, step = self.plan(), step_of(self, self.fixed_step)
        if plan is not None:
            return fixed_point(x, self.potential, float(step), plan.rate, plan.iterations)
        return self.potential.proximal(x, step)

    @torch.no_grad()
    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``|y - x + h grad f(y)|`` per sample: an upper bound of the error of y."""
        step = step_of(self, self.fixed_step)
        residual: Tensor = (y - x + step * self.potential.gradient(y)).flatten(1).norm(dim=1)
        return residual

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring.

        Raises:
            UnboundedModuleError: a fixed rate is too fast for the weights, which were changed.
        """
        plan, step = self.plan(), step_of(self, self.fixed_step).to("cpu", torch.float64)
        low, high = curvature(self.potential)
        limit = implicit_bound(step, low)
        if plan is None:
            return limit
        rate = torch.tensor(plan.rate, dtype=torch.float64)
        if not upward(rate * (2 + step * (low + high)), 4) <= 2:
            raise UnboundedModuleError(
                "the weights are no longer those that the fixed plan was made for: export again"
            )
        shrinks = downward(rate * (1 + step * low), 3)
        # q^K, rounded up; then 1 / (1 + h mu) + q^K h mu / (1 + h mu)
        left = upward(upward(1 - shrinks, 1).clamp(0, 1) ** plan.iterations, 16)
        return upward(limit + left * upward(step * low, 1) * limit, 4).clamp(max=1)

    def export(self) -> "ImplicitEuler":
        """The step with its plan fixed."""
        potential, plan = copy.deepcopy(self.potential), self.plan()
        return ImplicitEuler(potential, self.fixed_step, tolerance=self.tolerance, plan=plan)

    def extra_repr(self) -> str:
        """Step size and tolerance."""
        return f"step={self.fixed_step}, tolerance={self.tolerance}"
