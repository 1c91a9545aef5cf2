"""Power iteration: an estimate of a norm, from below."""

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
_SLACK = 8  # units of rounding by which the same squared length may differ


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


@torch.no_grad()
def advanced(
    operator: Operator,
    adjoint: Operator,
    direction: Tensor,
    known: Tensor,
    *,
    iterations: int = 1,
) -> Tensor:
    """The direction after power steps, or the same one if the map has not changed since the last.

    Whether it has is seen by ``|operator(direction)|^2``: see ``changed``. A forward pass that is
    repeated with the same weights, as gradient checkpointing does, therefore repeats its numbers. A
    direction that is mapped to 0 or overflows stays, for it would never come back.

    Args:
        operator: a linear map.
        adjoint: its adjoint.
        direction: where the last step ended.
        known: 0-d, the squared length of its image then; -1 if no step was taken yet.
        iterations: how often to apply both maps.
    """
    image = operator(_unit(direction))
    new = changed(image.square().sum(), known)
    moved = _unit(adjoint(_unit(image)))
    for _ in range(iterations - 1):
        moved = _unit(adjoint(_unit(operator(moved))))
    return torch.where(new & usable(moved), moved, direction)


@torch.no_grad()
def changed(square: Tensor, known: Tensor) -> Tensor:
    """Whether a squared length is another one than before, by more than rounding; also for NaN."""
    slack = _SLACK * torch.finfo(square.dtype).eps
    return ~((square - known).abs() <= slack * known)


def usable(moved: Tensor) -> Tensor:
    """Whether power steps can go on from here."""
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
