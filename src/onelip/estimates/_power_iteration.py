"""Power iteration: an estimate of a norm, from below."""

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def power_iteration(
    operator: Operator, adjoint: Operator, direction: Tensor, *, iterations: int = 1
) -> tuple[Tensor, Tensor]:
    """Estimate the norm of a linear map by iterating ``adjoint(operator(direction))``.

    The estimate never exceeds the norm in exact arithmetic, so it must not reach a certificate; see
    ``onelip.norms`` for that. It converges like ``(s2 / s1)^(2 iterations)``, s1 and s2 the two
    largest singular values; start from the last direction to go on where it ended.

    Shape: ``direction`` is what ``operator`` takes; ``adjoint`` maps back.
    Cost: one call of each map an iteration, and one of ``operator`` for the estimate.

    Args:
        operator: a linear map.
        adjoint: its adjoint.
        direction: where to start, of any length but zero.
        iterations: how often to apply both maps.

    Returns:
        The estimate, 0-d, differentiable in what ``operator`` depends on, and the new direction of
        length 1, detached.

    Example:
        >>> matrix = torch.diag(torch.tensor([3.0, 4.0]))
        >>> norm, _ = power_iteration(lambda u: matrix @ u, lambda v: matrix.T @ v,
        ...                           torch.ones(2), iterations=50)
        >>> norm
        tensor(4.)
    """
    direction = leading_direction(operator, adjoint, direction, iterations=iterations)
    norm: Tensor = torch.linalg.vector_norm(operator(direction))
    return norm, direction


def usable(moved: Tensor) -> Tensor:
    """Whether power steps can go on from here: one that is 0, or not finite, never comes back."""
    return moved.isfinite().all() & moved.any()


@torch.no_grad()
def leading_direction(
    operator: Operator, adjoint: Operator, direction: Tensor, *, iterations: int = 1
) -> Tensor:
    """The direction alone, which saves the call of ``operator`` that the estimate takes."""
    direction = _unit(direction)
    for _ in range(iterations):
        direction = _unit(adjoint(_unit(operator(direction))))
    return direction


def _unit(vector: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(vector).clamp_min(torch.finfo(vector.dtype).tiny)
    unit: Tensor = vector / length
    return unit
