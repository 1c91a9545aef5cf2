"""Radii that rest on estimates: wrong on purpose, to see that a test finds it."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.estimates import power_iteration

Operator = Callable[[Tensor], Tensor]
_SAMPLES = 200


def one_step_radius(model: nn.Sequential, x: Tensor) -> float:
    """The radius by the product of norms that one power step from a random start estimates.

    Shape: x is one input with a batch axis; the last part of the model is linear, and the others
    are linear layers, convolutions, or have the constant 1.
    """
    generator, constant, y = torch.Generator().manual_seed(0), 1.0, x
    for part in list(model)[:-1]:
        start = torch.randn(y.shape, generator=generator, dtype=y.dtype)
        y_before, y = y, part(y)
        if isinstance(part, nn.Linear):
            forward, back = _dense(part.weight)
        elif isinstance(part, nn.Conv2d):
            forward, back = _convolution(part, y_before)
        else:
            continue
        constant *= float(power_iteration(forward, back, start)[0])
    last = list(model)[-1]
    assert isinstance(last, nn.Linear)
    rows = last.weight
    return _least(last(y), lambda own, j: constant * float((rows[own] - rows[j]).norm()))


def _dense(weight: Tensor) -> tuple[Operator, Operator]:
    """A matrix on rows, and its adjoint."""
    return lambda a: a @ weight.T, lambda a: a @ weight


def _convolution(part: nn.Conv2d, x: Tensor) -> tuple[Operator, Operator]:
    """A convolution without bias, and its adjoint."""

    def forward(a: Tensor) -> Tensor:
        moved: Tensor = part(a) - part(torch.zeros_like(a))
        return moved

    def back(y: Tensor) -> Tensor:
        (found,) = torch.autograd.functional.vjp(forward, x, y)[1:]
        assert isinstance(found, Tensor)
        return found

    return forward, back


def sampled_radius(model: nn.Module, x: Tensor, reach: float = 1.0) -> float:
    """The radius by the largest slope that random points of a ball have.

    Args:
        model: from ``(batch, ...)`` to logits.
        x: one input with a batch axis.
        reach: radius of the ball.
    """
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(_SAMPLES, x.numel(), generator=generator, dtype=x.dtype)
    shares = torch.rand(_SAMPLES, 1, generator=generator, dtype=x.dtype) ** (1 / x.numel())
    points = x + reach * (shares * F.normalize(steps, dim=1)).view(-1, *x.shape[1:])
    points.requires_grad_()
    logits = model(points)

    def slope(own: int, j: int) -> float:
        total = (logits[:, own] - logits[:, j]).sum()
        (gradient,) = torch.autograd.grad(total, points, retain_graph=True)
        return float(gradient.flatten(1).norm(dim=1).max())

    return _least(model(x), slope)


def _least(logits: Tensor, constant: Callable[[int, int], float]) -> float:
    """The smallest margin over its constant."""
    own = int(logits[0].argmax())
    margins = (logits[0, own] - logits[0]).tolist()
    found = [math.inf]
    for j, margin in enumerate(margins):
        if j != own:
            between = constant(own, j)
            found.append(margin / between if between else math.inf)
    return min(found)
