"""The largest spectral norm of Jacobians at many points: a Lipschitz constant from below."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.deadline import Deadline

Function = Callable[[Tensor], Tensor]

_WRITTEN_OUT = 16  # up to this many outputs or inputs a Jacobian is computed whole


class Stretch(NamedTuple):
    """Largest stretch of a function near each point of a batch, and its direction."""

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


def stretch(
    function: Function,
    points: Tensor,
    *,
    iterations: int = 50,
    deadline: Deadline | None = None,
) -> Stretch:
    """The norm of the Jacobian at each point, and the direction that it stretches most.

    Args:
        function: as for ``jacobian_estimate``; twice differentiable as far as torch is concerned.
        points: a batch.
        iterations: of the power method.
        deadline: after which no iteration begins; the first one always does.
    """
    jacobian = _Jacobian(function, points)
    outputs, inputs = (math.prod(t.shape[1:]) for t in (jacobian.values, points))
    if min(outputs, inputs) <= _WRITTEN_OUT:
        matrix = jacobian.rows() if outputs <= inputs else jacobian.columns()
        norms, directions = torch.linalg.svd(matrix.nan_to_num(0.0, 0.0, 0.0), full_matrices=False)[
            1:
        ]
        return Stretch(norms[:, 0], directions[:, 0].reshape(points.shape))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(points.shape, generator=generator, dtype=torch.float64)
    directions = _unit(start.to(points))
    for _ in range(iterations):
        directions = _unit(jacobian.back(_unit(jacobian.forth(directions))))
        if deadline is not None and deadline.passed:
            break
    image = jacobian.forth(directions).flatten(1)
    return Stretch(torch.linalg.vector_norm(image, dim=1), directions)


class _Jacobian:
    """The Jacobian at each point of a batch, as a map and its adjoint.

    The map is the derivative of the adjoint, which is linear: forward mode is not needed, which not
    every operation has.
    """

    def __init__(self, function: Function, points: Tensor) -> None:
        with torch.enable_grad():
            self.points = points.detach().clone().requires_grad_()
            self.values = function(self.points)
            if not self.values.requires_grad:  # a constant
                self.values = self.values + 0 * self.points.sum()
            self._cotangent = torch.zeros_like(self.values).requires_grad_()
            self._pulled = self._gradient(self.values, self.points, self._cotangent, True)

    def back(self, cotangent: Tensor) -> Tensor:
        """``J^T u``."""
        return self._gradient(self.values, self.points, cotangent)

    def forth(self, tangent: Tensor) -> Tensor:
        """``J v``."""
        return self._gradient(self._pulled, self._cotangent, tangent)

    def rows(self) -> Tensor:
        """``(batch, outputs, inputs)``, one output at a time."""
        return torch.stack([self.back(unit).flatten(1) for unit in _units(self.values)], 1)

    def columns(self) -> Tensor:
        """Stretch, one input at a time."""
        return torch.stack([self.forth(unit).flatten(1) for unit in _units(self.points)], 2)

    @staticmethod
    def _gradient(of: Tensor, at: Tensor, weights: Tensor, again: bool = False) -> Tensor:
        return torch.autograd.grad(
            of, at, weights, retain_graph=True, create_graph=again, materialize_grads=True
        )[0]


def _units(like: Tensor) -> list[Tensor]:
    """Batches that are 1 at one entry of each sample and 0 elsewhere."""
    shape = like.shape[1:]
    units = torch.eye(math.prod(shape), dtype=like.dtype, device=like.device)
    return [unit.reshape(shape).expand_as(like) for unit in units]


def _unit(vectors: Tensor) -> Tensor:
    """Each sample divided by its length; 0 stays 0."""
    lengths = torch.linalg.vector_norm(vectors.flatten(1), dim=1)
    lengths = lengths.clamp_min(torch.finfo(vectors.dtype).tiny)
    unit: Tensor = vectors / lengths.reshape(-1, *[1] * (vectors.ndim - 1))
    return unit
