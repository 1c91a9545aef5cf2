"""The largest spectral norm of Jacobians at many points: a Lipschitz constant from below."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Pullback = Callable[[Tensor], tuple[Tensor]]

_WRITTEN_OUT = 16  # up to this many outputs or inputs a Jacobian is computed whole


class Stretch(NamedTuple):
    """How far a function stretches near each point of a batch, and in which direction."""

    norms: Tensor  # (batch,)
    directions: Tensor  # like the points, each of length 1


def jacobian_estimate(
    function: Function, points: Tensor, *, iterations: int = 50, chunk: int = 256
) -> Tensor:
    """Estimate the Lipschitz constant of a function by its Jacobians.

    Where the function is differentiable the norm never exceeds the constant, up to rounding. On a
    kink torch picks a derivative that need not be one, so the points should be random.

    Shape: ``points`` is ``(batch, ...)``, of the dtype of the function; better float64.
    Cost: a derivative per output or input, if one of them has up to 16; else two an iteration.

    Args:
        function: takes a batch and treats its samples one by one, as a network in eval mode does.
        points: where to look.
        iterations: of the power method, where the Jacobian is not computed whole.
        chunk: points at a time.

    Returns:
        A 0-d tensor; 0 for no points.

    Example:
        >>> jacobian_estimate(lambda x: 3 * x.sin(), torch.zeros(1, 2))
        tensor(3.)
    """
    parts = points.split(chunk) if len(points) else ()
    found = [stretch(function, part, iterations=iterations).norms for part in parts]
    return torch.cat([points.new_zeros(1), *found]).max()


@torch.no_grad()
def stretch(function: Function, points: Tensor, *, iterations: int = 50) -> Stretch:
    """The norm of the Jacobian at each point, and the direction that it stretches most.

    Args:
        function: as for ``jacobian_estimate``.
        points: a batch.
        iterations: of the power method.
    """
    linearized: tuple[Tensor, Pullback] = torch.func.vjp(function, points)  # type: ignore[assignment]
    values, pull = linearized
    outputs, inputs = (math.prod(t.shape[1:]) for t in (values, points))
    if min(outputs, inputs) <= _WRITTEN_OUT:
        matrix = _by_rows(values, pull) if outputs <= inputs else _by_columns(function, points)
        matrix = matrix.nan_to_num(0.0, 0.0, 0.0)
        norms, directions = torch.linalg.svd(matrix, full_matrices=False)[1:]
        return Stretch(norms[:, 0], directions[:, 0].reshape(points.shape))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(points.shape, generator=generator, dtype=torch.float64)
    directions = _unit(start.to(points))
    for _ in range(iterations):
        image = torch.func.jvp(function, (points,), (directions,))[1]
        directions = _unit(pull(_unit(image))[0])
    image = torch.func.jvp(function, (points,), (directions,))[1]
    return Stretch(torch.linalg.vector_norm(image.flatten(1), dim=1), directions)


def _by_rows(values: Tensor, pull: Pullback) -> Tensor:
    """The Jacobians, ``(batch, outputs, inputs)``, one output at a time."""
    units = torch.eye(math.prod(values.shape[1:]), dtype=values.dtype, device=values.device)
    rows = [pull(unit.reshape(values.shape[1:]).expand_as(values))[0].flatten(1) for unit in units]
    return torch.stack(rows, 1)


def _by_columns(function: Function, points: Tensor) -> Tensor:
    """The same, one input at a time."""
    units = torch.eye(math.prod(points.shape[1:]), dtype=points.dtype, device=points.device)
    tangents = [unit.reshape(points.shape[1:]).expand_as(points) for unit in units]
    columns = [torch.func.jvp(function, (points,), (t,))[1].flatten(1) for t in tangents]
    return torch.stack(columns, 2)


def _unit(vectors: Tensor) -> Tensor:
    """Each sample divided by its length; 0 stays 0."""
    lengths = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    lengths = lengths.clamp_min(torch.finfo(vectors.dtype).tiny)
    unit: Tensor = vectors / lengths.reshape(-1, *[1] * (vectors.ndim - 1))
    return unit
