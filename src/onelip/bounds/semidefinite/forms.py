r"""Quadratic inequalities of nonlinearities, and their weighted sums by multipliers.

For the differences y before the nonlinearity and x after it, an inequality

.. math:: -x^T C x + 2 x^T B y + y^T A y \ge 0 .

* **Slopes** in :math:`[a_i, b_i]`: :math:`(x_i - a_i y_i)(b_i y_i - x_i) \ge 0` for each entry, so
  for every diagonal :math:`T \ge 0` one may take
  :math:`C = T,\ B = T (a + b) / 2,\ A = -T a b`.
* **Sorting** in groups, J the 0-1 matrix that sums each group: no group stretches, hence
  :math:`\lambda_g (|y_g|^2 - |x_g|^2) \ge 0`, and sums stay the same, :math:`J^T x = J^T y`.
  Call them :math:`s`. Then :math:`s^T P s + 2 s^T R s + s^T Q s = 0` for all symmetric R and Q with
  :math:`P = -2 R - Q`, where the sums may be taken of x or of y as one likes:
  :math:`C = \Lambda - J P J^T,\ B = J R J^T,\ A = \Lambda + J Q J^T`. (Pauli et al. take
  diagonal R and Q; a full R can force the equation :math:`J^T x = J^T y` where it counts.)

Reference: Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep neural
networks" (2019); Pauli, Havens, Araujo et al., "Novel quadratic constraints for extending LipSDP
beyond slope-restricted activations" (2024).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.semidefinite.matrices import Groups, Slopes
from onelip.norms.rounding import UNDERFLOW, UNIT, upward


@dataclass(frozen=True)
class SlopeMultipliers:
    """One weight per entry; negative, infinite and NaN weights count as 0."""

    weights: Tensor


@dataclass(frozen=True)
class GroupMultipliers:
    """One weight per group, and two arbitrary symmetric matrices over the groups."""

    weights: Tensor
    cross: Tensor
    before: Tensor


Multipliers = SlopeMultipliers | GroupMultipliers


class Form(NamedTuple):
    """Matrices C, B and A of the quadratic inequality, in full or as diagonals.

    ``error`` bounds the spectral norm of the rounding error of each.
    """

    after: Tensor
    cross: Tensor
    before: Tensor
    error: Tensor


def form(kind: Slopes | Groups, multipliers: Multipliers) -> Form:
    """Return the quadratic inequality of a nonlinearity, weighted by multipliers.

    Raises:
        ValueError: the multipliers belong to another nonlinearity, or have another size.
    """
    if isinstance(kind, Slopes) and isinstance(multipliers, SlopeMultipliers):
        return _of_slopes(kind, multipliers)
    if isinstance(kind, Groups) and isinstance(multipliers, GroupMultipliers):
        return _of_groups(kind, multipliers)
    raise ValueError(
        f"{type(multipliers).__name__} do not fit a nonlinearity of the kind {type(kind).__name__}"
    )


def scaled(multipliers: Multipliers, factor: float | Tensor) -> Multipliers:
    """Multiply all multipliers of a layer by a positive number."""
    values = [factor * part for part in vars(multipliers).values()]
    return type(multipliers)(*values)


def _of_slopes(kind: Slopes, multipliers: SlopeMultipliers) -> Form:
    """Form of an elementwise activation."""
    weights = _weights(multipliers.weights, len(kind.low))
    cross = weights * (kind.low + kind.high) / 2
    before = -(weights * kind.low * kind.high)
    size = torch.maximum(kind.low.abs(), kind.high.abs()).clamp_min(1).square() * weights
    return Form(weights, cross, before, upward(size.max() * 4 * UNIT + UNDERFLOW, 4))


def _of_groups(kind: Groups, multipliers: GroupMultipliers) -> Form:
    """Form of sorting in groups."""
    weights = _weights(multipliers.weights, kind.count)
    cross, before = (
        _symmetric(matrix, kind.count) for matrix in (multipliers.cross, multipliers.before)
    )
    after = -2 * cross - before
    spread = torch.diag(weights[kind.index])
    among = kind.index[:, None], kind.index
    size = weights.max() + len(kind.index) * (2 * cross.abs().max() + before.abs().max())
    return Form(
        spread - after[among],
        cross[among],
        spread + before[among],
        upward(size * 4 * UNIT + UNDERFLOW, 8),
    )


def _weights(numbers: Tensor, count: int) -> Tensor:
    """Return weights in float64; every nonnegative weight gives a valid inequality."""
    numbers = numbers.detach().cpu().double()
    if numbers.shape != (count,):
        raise ValueError(f"{count} multipliers are wanted, got {tuple(numbers.shape)}")
    return numbers.nan_to_num(0, 0, 0).clamp_min(0)


def _symmetric(numbers: Tensor, count: int) -> Tensor:
    """Return a symmetric float64 matrix from the lower triangle, zeros where not finite."""
    numbers = numbers.detach().cpu().double().nan_to_num(0, 0, 0)
    if numbers.shape != (count, count):
        raise ValueError(f"a matrix of {count} groups is wanted, got {tuple(numbers.shape)}")
    return numbers.tril() + numbers.tril(-1).mT


def times(part: Tensor, matrix: Tensor) -> Tensor:
    """Multiply a part of a form by a matrix."""
    return part[:, None] * matrix if part.ndim == 1 else part @ matrix


def as_matrix(part: Tensor) -> Tensor:
    """Write a part of a form out as a matrix."""
    return torch.diag(part) if part.ndim == 1 else part
