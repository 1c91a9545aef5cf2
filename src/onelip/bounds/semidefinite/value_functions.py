r"""Proof of how far a linear function of a network's output can rise in a ball, layer by layer.

A *value function* :math:`V_k(\delta) = \kappa_k + q_k^T \delta + \delta^T P_k \delta / 2` bounds
what the last layers make of the difference :math:`\delta` that reaches them. For a stage
:math:`\delta' = F \delta + G w`, :math:`z = U \delta` (``neighbourhood/stages.py``) and any
multipliers :math:`\lambda, m_1, m_2 \ge 0`,

.. math:: V_{k+1}(\delta') + \sum_i \lambda_i (w - s_1 z - o_1)_i (s_2 z + o_2 - w)_i
          + \sum_{ij} m_{ji} \sigma_i (w - s_j z - o_j)_i \le V_k(\delta)

for all :math:`\delta` and w is enough: what was added is not negative. It is the statement that one
matrix is positive semidefinite. The least such :math:`V_k` follows by elimination of w, a Riccati
recursion, and in the end :math:`V_0` is bounded on a ball.

Nothing of the recursion is trusted. Every :math:`V_k` is a set of stored numbers, and for each
stage the matrix of stored numbers is proved to be positive, but for a small multiple of the
identity, by ``norms/verification.py``. That, the rounding of its entries, and the errors of the
maps and of the offsets count with bounds of :math:`|\delta|` and :math:`|w|`.

Reference: storage functions of dissipative systems (Willems, 1972); for networks in boxes,
Lagrangians of quadratic constraints (Raghunathan, Steinhardt, Liang, NeurIPS 2018).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.stages import Lines, Placed, Stage
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward
from onelip.norms.verification import Dense, below, cholesky

_LEVELS = (1e-11, 1e-10, 1e-9, 1e-7)  # of the identity that is added, relative to the largest entry


class Multipliers(NamedTuple):
    """Multipliers of a stage: of the product, ``(units,)``, and of both lines, ``(2, units)``."""

    products: Tensor
    lines: Tensor


class Terms(NamedTuple):
    r"""What multipliers add for each unit, as numbers of a polynomial.

    :math:`-A w^2 / 2 + B w z - D z^2 / 2 + a w + b z`, and the sum of what is constant.
    """

    ww: Tensor
    wz: Tensor
    zz: Tensor
    w: Tensor
    z: Tensor
    constant: Tensor


class Value(NamedTuple):
    """A value function: its constant, its slope and its matrix."""

    constant: Tensor
    slope: Tensor
    matrix: Tensor


def terms(found: Lines, multipliers: Multipliers) -> Terms:
    """Write out what the multipliers add; see ``_lost`` for its rounding."""
    first, second = found.slopes
    one, two = found.offsets
    products, (low, high) = multipliers.products, multipliers.lines * found.side
    return Terms(
        2 * products,
        products * (first + second),
        2 * products * first * second,
        products * (one + two) + low + high,
        -products * (first * two + second * one) - low * first - high * second,
        -(products * one * two + low * one + high * two).sum(),
    )


class Step(NamedTuple):
    """A stage of the recursion: the factor of S, ``L^-1 C`` and ``L^-1 g``."""

    factor: Tensor
    gain: Tensor
    shift: Tensor


def backward(stage: Stage, added: Terms, after: Value) -> tuple[Value, Step]:
    """Eliminate w: the least value function before a stage. NaN where there is none."""
    outer, inner = stage.outer.entries, stage.inner.entries
    pulled = outer.mT @ after.matrix
    square = -(pulled @ outer)
    square.diagonal().add_(added.ww)
    around = stage.around
    through = pulled if around is None else pulled @ around.entries
    corner = through + added.wz[:, None] * inner
    column = outer.mT @ after.slope + added.w
    factor = cholesky(square)
    both = torch.linalg.solve_triangular(
        factor, torch.cat([corner, column[:, None]], 1), upper=False
    )
    gain, shift = both[:, :-1], both[:, -1]
    left, right = gain, gain
    if added.zz.any():
        left = torch.cat([gain, -added.zz[:, None] * inner])
        right = torch.cat([gain, inner])
    matrix = after.matrix if around is None else around.entries.mT @ after.matrix @ around.entries
    matrix = torch.addmm(matrix, left.mT, right)
    slope = after.slope if around is None else around.entries.mT @ after.slope
    slope = slope + inner.mT @ added.z + gain.mT @ shift
    constant = after.constant + added.constant + shift @ shift / 2
    return Value(constant, slope, matrix), Step(factor, gain, shift)


@torch.no_grad()
def proved_rise(
    network: list[Placed],
    multipliers: list[Multipliers],
    row: Tensor,
    radius: Tensor,
    weight: float,
    *,
    room: Tensor | None = None,
) -> Tensor:
    r"""Bound of how far ``row @ output`` can rise from the centre of a ball to its other points.

    Bound: for any multipliers and weights; infinite where they prove nothing. With walls, for the
        points of the ball inside them.

    Args:
        network: its stages in the ball.
        multipliers: of the walls and of each stage.
        row: exact.
        radius: of the ball, 0-d.
        weight: multiplier of ``|delta|^2 <= radius^2``, halved.
        room: bounds of how far each number of the input may move down and up, ``(2, numbers)``.
    """
    nothing = torch.full((), math.inf, dtype=torch.float64)
    zero = row.new_zeros(())
    value, lost = Value(zero, row, row.new_zeros(len(row), len(row))), zero
    if not all(map(_usable, multipliers)):
        return nothing
    for single, chosen in reversed(list(zip(network, multipliers[1:], strict=True))):
        before, _ = backward(single.stage, terms(single.lines, chosen), value)
        before = before._replace(matrix=(before.matrix + before.matrix.mT) / 2)
        if not all(bool(torch.isfinite(part).all()) for part in before):
            return nothing
        lost = upward(lost + _lost_in_terms(single, chosen), 2)
        lost = upward(lost + _lost_in_step(single, chosen, before, value), 2)
        value = before
    if room is not None:
        value, off = _inside(value, multipliers[0].lines, room, radius)
        lost = upward(lost + off, 2)
    found = _largest(value, radius, weight).clamp_min(0)
    return upward(found + lost, 2).nan_to_num(math.inf, math.inf)


def _inside(value: Value, walls: Tensor, room: Tensor, radius: Tensor) -> tuple[Value, Tensor]:
    r"""Add :math:`m_1^T (\delta + d) + m_2^T (u - \delta)`, which is not negative inside walls.

    Returns:
        What bounds the value function inside, and how far rounding may move it.
    """
    constant = upward(value.constant + upward((walls * room).sum(), walls.numel() + 4), 2)
    sizes = value.slope.abs() + walls.sum(0)
    off = upward(4 * UNIT * frobenius(sizes[None]) * radius, 8) + len(sizes) * UNDERFLOW
    return value._replace(constant=constant, slope=value.slope + walls[0] - walls[1]), off


def _usable(multipliers: Multipliers) -> bool:
    """Whether all multipliers are numbers that are not negative."""
    return all(bool((part >= 0).all() & torch.isfinite(part).all()) for part in multipliers)


def _lost_in_terms(single: Placed, multipliers: Multipliers) -> Tensor:
    """Bound how far what was added may be below 0: offsets and inner maps have errors."""
    stage, found, distance = single
    steep = found.slopes.abs().sum(0)
    off = upward(found.off + steep * stage.inner.error * distance, 4)
    products = multipliers.products * (2 * found.size * off + off.square())
    return upward((products + multipliers.lines.sum(0) * off).sum(), len(off) + 16)


def _lost_in_step(single: Placed, chosen: Multipliers, before: Value, after: Value) -> Tensor:
    """Bound how far the value function before a stage may be below what it has to exceed."""
    stage, found, distance = single
    added = terms(found, chosen)
    outer, inner, around = stage.outer, stage.inner, stage.around
    pulled = outer.entries.mT @ after.matrix
    square = -(pulled @ outer.entries)
    square = (square + square.mT) / 2
    square.diagonal().add_(added.ww)
    through = pulled if around is None else pulled @ around.entries
    corner = -(through + added.wz[:, None] * inner.entries)
    turned = after.slope if around is None else around.entries.mT @ after.slope
    column = before.slope - turned - inner.entries.mT @ added.z
    last = -(outer.entries.mT @ after.slope + added.w)
    whole = after.matrix
    if around is not None:
        whole = around.entries.mT @ (after.matrix @ around.entries)
        whole = (whole + whole.mT) / 2
    whole = before.matrix - whole + inner.entries.mT @ (added.zz[:, None] * inner.entries)
    whole = (whole + whole.mT) / 2
    corner_ = 2 * (before.constant - after.constant - added.constant)
    top = torch.cat([corner_[None], column, last])[None]
    middle = torch.cat([column[:, None], whole, corner.mT], 1)
    bottom = torch.cat([last[:, None], corner, square], 1)
    matrix = torch.cat([top, middle, bottom])
    moved = upward(stage.layer.nonlinearity.constant * stage.norm * distance, 4)  # of w
    lengths = upward(1 + distance.square() + moved.square(), 6)
    least = _least_eigenvalue(matrix)
    off = _rounding(single, chosen, (before, after), moved)
    return upward((least * lengths + off) / 2, 4)


def _least_eigenvalue(matrix: Tensor) -> Tensor:
    """Bound how far the smallest eigenvalue of a symmetric matrix may be below 0."""
    scale = matrix.abs().max()
    if scale == 0:
        return scale
    for level in _LEVELS:
        bound: Tensor = below(Dense(matrix), -level * scale).bound
        if bool(bound > -1e4 * level * scale):
            return (-bound).clamp_min(0)
    return torch.full((), math.inf, dtype=torch.float64)


def _rounding(
    single: Placed, chosen: Multipliers, values: tuple[Value, Value], moved: Tensor
) -> Tensor:
    """Bound what rounding and errors of the maps change of twice the form, at most."""
    stage, found, distance = single
    before, after = values
    rows, units = stage.outer.entries.shape
    terms_ = gamma(2 * rows + 2 * units + 24)
    sizes = terms(found.absolute(), chosen)  # sums of absolute values: nothing cancels
    outer, off_outer = stage.outer.size, stage.outer.error
    one = torch.ones((), dtype=torch.float64)
    same = stage.around is None
    around = one if same else stage.around.size  # type: ignore[union-attr]
    off_around = 0 * one if same else stage.around.error  # type: ignore[union-attr]
    inner = stage.inner.size
    matrix = frobenius(after.matrix)
    slope = frobenius(after.slope[None])
    # |dM| of each block, from the rounding of its sums and the errors of its maps.
    size_ww = outer.square() * matrix + sizes.ww.sum()
    size_wd = outer * around * matrix + sizes.wz.max() * inner if units else 0 * one
    size_dd = around.square() * matrix + frobenius(before.matrix)
    size_dd = size_dd + (sizes.zz.max() * inner.square() if units else 0 * one)
    size_d = around * slope + frobenius(before.slope[None]) + inner * frobenius(sizes.z[None])
    size_w = outer * slope + frobenius(sizes.w[None])
    size_1 = before.constant.abs() + after.constant.abs() + sizes.constant.abs()
    maps_ww = (2 * outer + off_outer) * off_outer * matrix
    maps_wd = matrix * (outer * off_around + off_outer * (around + off_around))
    maps_dd = (2 * around + off_around) * off_around * matrix
    total = (terms_ * size_ww + maps_ww) * moved.square()
    total = total + 2 * (terms_ * size_wd + maps_wd) * moved * distance
    total = total + (terms_ * size_dd + maps_dd) * distance.square()
    total = total + 2 * (terms_ * size_d + off_around * slope) * distance
    total = total + 2 * (terms_ * size_w + off_outer * slope) * moved + 4 * terms_ * size_1
    return upward(total, 64) + (rows + units) ** 2 * UNDERFLOW


def _largest(value: Value, radius: Tensor, weight: float) -> Tensor:
    """Bound a value function on the ball."""
    size = len(value.slope)
    square = weight * torch.eye(size, dtype=torch.float64) - value.matrix
    factor = cholesky(square)
    vector = torch.cholesky_solve(value.slope[:, None], factor)[:, 0]
    guess = value.constant + weight * radius.square() / 2 + value.slope @ vector / 2
    corner = 2 * (guess - value.constant) - weight * radius.square()
    top = torch.cat([corner[None], -value.slope])[None]
    matrix = torch.cat([top, torch.cat([-value.slope[:, None], square], 1)])
    if weight < 0 or not torch.isfinite(matrix).all():
        return torch.full((), math.inf, dtype=torch.float64)
    off = 8 * UNIT * (guess.abs() + value.constant.abs() + weight * radius.square())
    off = off + 4 * UNIT * frobenius(square) * radius.square()
    least = _least_eigenvalue(matrix) * upward(1 + radius.square(), 4)
    return guess + upward(least + off, 16)
