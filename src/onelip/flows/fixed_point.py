r"""Fixed point of an implicit step, with its gradient by implicit differentiation.

With H the Hessian at y, :math:`y + h \nabla f(y; \theta) = x` implies
:math:`(I + h H)\, dy = dx - h\, \partial_\theta \nabla f(y)\, d\theta`. So for a gradient g of y:
solve :math:`(I + h H) v = g` by the contraction :math:`v \leftarrow v + \tau (g - v - h H v)`;
then v is the gradient of x and :math:`-h (\partial_\theta \nabla f(y))^T v` that of
:math:`\theta`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from onelip.errors import NotApplicableError
from onelip.flows.potential import Potential


def fixed_point(
    x: Tensor, potential: Potential, step: float, rate: float, iterations: int
) -> Tensor:
    """Iterate ``y <- y + rate (x - y - step grad f(y))``, starting at x.

    Cost: one gradient an iteration; backwards, one product with the Hessian. Only y is kept.

    Args:
        x: ``(batch, ...)``.
        potential: f.
        step: h.
        rate: at most ``2 / (2 + h L)``.
        iterations: number of iterations, the same for all samples.
    """
    settings = potential, step, rate, iterations
    try:
        y: Tensor = _FixedPoint.apply(x, settings, *potential.parameters())  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        # torch.func refuses functions without setup_context by a RuntimeError that names it
        if "setup_context" not in str(error):
            raise
        raise NotApplicableError(
            "an implicit step has no rule for torch.func (vmap, jvp, jacrev): use torch.autograd, "
            "or ExplicitEuler"
        ) from error
    return y


class _Gradient(nn.Module):
    """Gradient as a forward pass, so that it can be called with the saved parameters."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(self, x: Tensor) -> Tensor:
        return self.potential.gradient(x)


class _FixedPoint(torch.autograd.Function):
    """Iteration that keeps its result only, and solves for the gradient by the same iteration."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: Any, *parameters: Tensor) -> Tensor:
        potential, step, rate, iterations = ctx.settings = settings
        y = x.detach()
        for _ in range(iterations):
            y = y + rate * (x.detach() - y - step * potential.gradient(y))
        ctx.save_for_backward(y, *parameters)
        return y

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotApplicableError(
                "an implicit step has no second derivatives: create_graph=False, or ExplicitEuler"
            )
        potential, step, rate, iterations = ctx.settings
        y, *parameters = ctx.saved_tensors
        names = [name for name, _ in potential.named_parameters()]
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            used = dict(zip([f"potential.{name}" for name in names], parameters, strict=True))
            gradient = functional_call(_Gradient(potential), used, point)
        (g,) = upstream
        v = g
        # I + h H is symmetric: the same relaxation converges at the same rate as in forward
        for _ in range(iterations):
            v = v + rate * (g - v - step * _products(gradient, [point], v)[0])
        wanted = [p for p, need in zip(parameters, ctx.needs_input_grad[2:], strict=True) if need]
        found = iter(_products(gradient, wanted, -step * v))
        of_parameters = [next(found) if need else None for need in ctx.needs_input_grad[2:]]
        return v, None, *of_parameters


def _products(gradient: Tensor, inputs: list[Tensor], v: Tensor) -> tuple[Tensor, ...]:
    """Return vector-Jacobian products of a gradient; 0 for inputs that it does not depend on."""
    if not inputs or not gradient.requires_grad:
        return tuple(torch.zeros_like(part) for part in inputs)
    return torch.autograd.grad(
        gradient, inputs, v, retain_graph=True, allow_unused=True, materialize_grads=True
    )
