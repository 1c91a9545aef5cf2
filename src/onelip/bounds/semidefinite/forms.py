r"""What multipliers make of what is known about a nonlinearity.

For the differences y in front of it and x behind it, an inequality

.. math:: -x^T C x + 2 x^T B y + y^T A y \ge 0 .

* **Slopes** in :math:`[a_i, b_i]`: :math:`(x_i - a_i y_i)(b_i y_i - x_i) \ge 0` for each entry, so
  for every diagonal :math:`T \ge 0` one may take
  :math:`C = T,\ B = T (a + b) / 2,\ A = -T a b`.
* **Sorting** in groups, J the 0-1 matrix that sums each group: no group stretches, hence
  :math:`\lambda_g (|y_g|^2 - |x_g|^2) \ge 0`, and sums stay as they are, :math:`J^T x = J^T y`.
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
    """One weight per entry; weights that are negative, infinite or NaN count as 0."""

    weights: Tensor


@dataclass(frozen=True)
class GroupMultipliers:
    """One weight per group, and two symmetric matrices over the groups that may be anything."""

    weights: Tensor
    cross: Tensor
    before: Tensor


Multipliers = SlopeMultipliers | GroupMultipliers


class Form(NamedTuple):
    """C, B and A of the quadratic inequality, as matrices or as diagonals.

    ``error`` bounds the spectral norm of what rounding may have changed in each.
    """

    after: Tensor
    cross: Tensor
    before: Tensor
    error: Tensor


def form(kind: Slopes | Groups, multipliers: Multipliers) -> Form:
    """The inequality that multipliers make of what is known about a nonlinearity.

    Raises:
        ValueError: the multipliers are those of another nonlinearity, or of another size.
    """
    if isinstance(kind, Slopes) and isinstance(multipliers, SlopeMultipliers):
        return _of_slopes(kind, multipliers)
    if isinstance(kind, Groups) and isinstance(multipliers, GroupMultipliers):
        return _of_groups(kind, multipliers)
    raise ValueError(
        f"{type(multipliers).__name__} do not fit a nonlinearity of the kind {type(kind).__name__}"
    )


def scaled(multipliers: Multipliers, factor: float | Tensor) -> Multipliers:
    """All multipliers of a layer, times a positive number."""
    values = [factor * part for part in vars(multipliers).values()]
    return type(multipliers)(*values)


def _of_slopes(kind: Slopes, multipliers: SlopeMultipliers) -> Form:
    weights = _weights(multipliers.weights, len(kind.low))
    cross = weights * (kind.low + kind.high) / 2
    before = -(weights * kind.low * kind.high)
    size = torch.maximum(kind.low.abs(), kind.high.abs()).clamp_min(1).square() * weights
    return Form(weights, cross, before, upward(size.max() * 4 * UNIT + UNDERFLOW, 4))


def _of_groups(kind: Groups, multipliers: GroupMultipliers) -> Form:
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
    numbers = numbers.detach().cpu().double()
    if numbers.shape != (count,):
        raise ValueError(f"{count} multipliers are wanted, got {tuple(numbers.shape)}")
    return numbers.nan_to_num(0, 0, 0).clamp_min(0)


def _symmetric(numbers: Tensor, count: int) -> Tensor:
    numbers = numbers.detach().cpu().double().nan_to_num(0, 0, 0)
    if numbers.shape != (count, count):
        raise ValueError(f"a matrix of {count} groups is wanted, got {tuple(numbers.shape)}")
    return numbers.tril() + numbers.tril(-1).mT


def times(part: Tensor, matrix: Tensor) -> Tensor:
    """The product with a part of a form."""
    return part[:, None] * matrix if part.ndim == 1 else part @ matrix


def as_matrix(part: Tensor) -> Tensor:
    """A part of a form, written out."""
    return torch.diag(part) if part.ndim == 1 else part
