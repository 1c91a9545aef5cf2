"""Two points that a function moves apart as much as it can: a Lipschitz constant from below."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from onelip.deadline import Deadline
from onelip.estimates.jacobian import Function

_NOISE = 1e-12  # relative rounding error of a network's output that a quotient must stand above


class Pair(NamedTuple):
    """Two points, and ``|f(x) - f(y)| / |x - y|``."""

    quotient: Tensor
    x: Tensor
    y: Tensor


@torch.no_grad()
def quotients(function: Function, x: Tensor, y: Tensor) -> Tensor:
    """``|f(x) - f(y)| / |x - y|`` of each pair, less what rounding may have added; 0 for NaN.

    Args:
        function: takes a batch and treats its samples one by one.
        x: a batch.
        y: as many points.

    Example:
        >>> quotients(lambda x: 3 * x, torch.zeros(1, 2).double(), torch.ones(1, 2).double())
        tensor([3.0000], dtype=torch.float64)
    """
    values, others = function(x).flatten(1), function(y).flatten(1)
    sizes = torch.linalg.vector_norm(values, dim=1) + torch.linalg.vector_norm(others, dim=1)
    change = torch.linalg.vector_norm(values - others, dim=1) - _NOISE * sizes
    found: Tensor = change / torch.linalg.vector_norm((x - y).flatten(1), dim=1) * (1 - _NOISE)
    return found.nan_to_num(0.0, 0.0, 0.0).clamp_min(0.0)


def pair_search(
    function: Function,
    start: Tensor,
    *,
    steps: int = 200,
    width: float | Tensor = 1.0,
    directions: Tensor | None = None,
    deadline: Deadline | None = None,
) -> Pair:
    """Gradient ascent on ``|f(x) - f(y)| / |x - y|``, from many starts at once.

    The distance shrinks from ``width`` to a thousandth of it: wide pairs feel the gradient of
    networks whose Jacobian is constant in pieces, close ones reach the norm of one Jacobian.

    Shape: ``start`` is ``(batch, ...)``, of the dtype of the function: float64.
    Cost: two forward and backward passes a step.

    Args:
        function: takes a batch and treats its samples one by one.
        start: the middle of each pair at the beginning.
        steps: of Adam.
        width: distance of the first pairs; a number, or a tensor that broadcasts to the starts.
        directions: of each pair at the beginning; random if left out.
        deadline: after which no step begins; the first one always does.

    Returns:
        The best pair of all steps and starts: a quotient that two points attain.

    Example:
        >>> pair = pair_search(lambda x: x.sin(), torch.ones(4, 1).double())
        >>> 0.999 < float(pair.quotient) <= 1
        True
    """
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(start.shape, generator=generator, dtype=torch.float64).to(start)
    shift = torch.zeros_like(start).requires_grad_()
    towards = (random if directions is None else directions).detach().clone().requires_grad_()
    groups: list[dict[str, Any]] = [{"params": [shift]}, {"params": [towards], "lr": 0.05}]
    optimizer = torch.optim.Adam(groups)
    best = Pair(start.new_zeros(()), start[0], start[0])
    for step in range(steps):
        near = 1e-3 ** (step / max(1, steps - 1))
        optimizer.param_groups[0]["lr"] = 0.2 * near
        with torch.enable_grad():
            half = near / 2 * _unit(towards)
            x, y = start + width * (shift + half), start + width * (shift - half)
            change = torch.linalg.vector_norm((function(x) - function(y)).flatten(1), dim=1)
            loss = -change.clamp_min(1e-300).log().sum()
        gradients = torch.autograd.grad(loss, [shift, towards])
        for parameter, gradient in zip((shift, towards), gradients, strict=True):
            parameter.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        best = better(best, best_pair(function, x.detach(), y.detach()))
        if deadline is not None and deadline.passed:
            break
        optimizer.step()
    return best


def best_pair(function: Function, x: Tensor, y: Tensor) -> Pair:
    """The pair of a batch with the largest quotient."""
    found = quotients(function, x, y)
    index = int(found.argmax())
    return Pair(found[index], x[index], y[index])


def better(pair: Pair, other: Pair) -> Pair:
    """The one with the larger quotient."""
    return pair if pair.quotient >= other.quotient else other


def _unit(vectors: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(vectors.flatten(1), dim=1).clamp_min(1e-30)
    unit: Tensor = vectors / lengths.reshape(-1, *[1] * (vectors.ndim - 1))
    return unit
