"""Checks of a convex potential against its proved curvature."""

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

from onelip.errors import NotApplicableError
from onelip.flows.potential import Potential, curvature
from onelip.testing.searching import (
    FILLS,
    PAIRS,
    REFUSALS,
    Shape,
    filled,
    inputs,
    kind_of,
    largest_stretch,
    lengths,
    require,
    require_below,
    same_state,
)


def check_potential(potential: Potential, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """Check the value, gradient and curvature of a potential, with several sets of weights.

    Its gradient must be that of its value, or at least have a symmetric Jacobian, sample by sample;
    pairs of inputs are searched at which the gradient changes by more than ``smoothness()`` or less
    than ``convexity()`` allows, and a closed form of the proximal step must solve its equation, for
    short and long steps. Without a smoothness, a narrow spot that is not convex may be missed.

    Args:
        potential: it is copied, never changed.
        input_shape: shape of one input, without the batch.
        tolerance: relative slack for the rounding of the measurement itself.

    Raises:
        AssertionError: a claim is refuted; the message says which.
        UnboundedModuleError: what it claims is no interval, or is inherited.

    Example:
        >>> from onelip.flows import RidgeLinear
        >>> check_potential(RidgeLinear(3, 5), (3,))
    """
    potential = copy.deepcopy(potential).to("cpu", torch.float64)
    before = copy.deepcopy(potential.state_dict())
    low, high = curvature(potential)
    unchanged = same_state(before, potential.state_dict())
    require(unchanged, "asking for the curvature changed the state")
    _check_value(potential, inputs(input_shape, 6), tolerance)
    _check_curvature(potential, input_shape, tolerance, "")
    for name, fill in FILLS.items():
        changed = filled(potential, fill)
        with suppress(*REFUSALS):
            _check_curvature(changed, input_shape, tolerance, f" with {name} weights")
    require(curvature(potential) == (low, high), "asked twice, the curvature differs")


def _check_value(potential: Potential, x: Tensor, tolerance: float) -> None:
    """Check that the gradient is the derivative of the value, sample by sample."""
    gradient = potential.gradient(x).detach()
    for i in range(len(x)):
        alone = potential.gradient(x[i : i + 1])[0]
        same = torch.allclose(alone, gradient[i], rtol=1e-9, atol=1e-9)
        require(same, f"sample {i} has another gradient in a batch than alone")
    _check_symmetry(potential, x)
    with suppress(NotApplicableError):  # some values have no closed form
        derivative = Potential.gradient(potential, x)
        same = torch.allclose(derivative, gradient, rtol=tolerance, atol=tolerance)
        require(same, "gradient() is not the derivative of forward()")


def _check_symmetry(potential: Potential, x: Tensor) -> None:
    """Check that the Jacobian J of the gradient is symmetric: ``u.Jv = v.Ju``."""
    u, v = inputs((2, *x.shape), 1)[0]
    point = x.clone().requires_grad_()
    gradient = potential.gradient(point)
    if not gradient.requires_grad:
        return
    to_u, to_v = (
        torch.autograd.grad(gradient, point, way, retain_graph=True, allow_unused=True)[0]
        for way in (u, v)
    )
    if to_u is None or to_v is None:
        return
    gap = (to_u * v - to_v * u).flatten(1).sum(1).abs()
    size = (lengths(to_u) * lengths(v) + lengths(to_v) * lengths(u)).clamp(min=1)
    require(bool((gap <= 1e-6 * size).all()), "gradient() has no symmetric Jacobian")


def _check_proximal(potential: Potential, x: Tensor, when: str) -> None:
    for step in (1e-2, 0.7, 30.0):
        _check_proximal_step(potential, x, torch.tensor(step, dtype=x.dtype), when)


@torch.no_grad()
def _check_proximal_step(potential: Potential, x: Tensor, step: Tensor, when: str) -> None:
    """Check the growth around the minimiser: at least half the squared distance."""

    def objective(y: Tensor) -> Tensor:
        value: Tensor = potential(y)
        return (y - x).square().flatten(1).sum(1) / 2 + step * value

    best = potential.proximal(x, step)
    for away in 0.1 * inputs(tuple(x.shape), 16):
        growth = objective(best + away) - objective(best)
        least = away.square().flatten(1).sum(1) / 2
        slack = 1e-9 * (1 + least + objective(best).abs())
        solved = bool((growth >= least - slack).all())
        require(solved, f"proximal() is not the minimiser at step {float(step)}{when}")


def _check_curvature(potential: Potential, input_shape: Shape, tolerance: float, when: str) -> None:
    """Check that the gradient changes by no more than L and no less than mu."""
    low, high = curvature(potential.requires_grad_(False))
    x, z = inputs(input_shape, 2 * PAIRS).split(PAIRS)
    change = ((potential.gradient(x) - potential.gradient(z)) * (x - z)).flatten(1).sum(1)
    slack = tolerance * (1 + high.clamp(max=1e3)) * lengths(x - z)
    curved = bool((change >= low * lengths(x - z).square() - slack).all())
    require(curved, f"{kind_of(potential)} is less convex than {float(low)}{when}")
    if potential.has_proximal:
        with suppress(NotApplicableError):  # values without a closed form
            _check_proximal(potential, x, when)
    if high.isfinite():
        found = largest_stretch(_Step(potential, None), input_shape)
        allowed = high * (1 + tolerance) + 1e-140
        require_below(found, allowed, f"the gradient{when}", potential)
        reach = torch.where(high > 0, high, 1.0)
        found = largest_stretch(_Step(potential, reach), input_shape)
        allowed = 1 - low / reach + tolerance
        require_below(found, allowed, f"not convex enough{when}: x - grad f(x) / L", potential)


class _Step(nn.Module):
    """Gradient of a potential, or ``x - grad f(x) / reach``."""

    def __init__(self, potential: Potential, reach: Tensor | None) -> None:
        super().__init__()
        self.potential, self.reach = potential, reach

    def forward(self, x: Tensor) -> Tensor:
        gradient = self.potential.gradient(x)
        return gradient if self.reach is None else x - gradient / self.reach
