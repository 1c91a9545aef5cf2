r"""Multipliers chosen layer by layer, from the first to the last.

After layer k one knows a matrix with :math:`x_k^T X_k x_k \le |x_0|^2` for all differences
:math:`x_k` that a difference :math:`x_0` of inputs can cause. A layer's multipliers turn
:math:`X_k` into :math:`X_{k+1}`; the squared constant is the largest eigenvalue of
:math:`W_L X_L^{-1} W_L^T`. Nothing here is a proof: that is what ``multipliers.proved`` is for.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import (
    Form,
    GroupMultipliers,
    Multipliers,
    SlopeMultipliers,
    as_matrix,
    form,
    scaled,
    times,
)
from onelip.bounds.semidefinite.matrices import Groups, Matrices, Slopes

_FLAT = 1e-6  # half-widths of slopes, relative to the slopes, are taken to be at least this
INSIDE = 1 - 1e-9  # weights stay this far within what the matrix inequality allows
_ROOM = 1.5  # above the smallest level that multipliers prove: where the search starts
_SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)  # of the largest weight of sorting

Rule = Callable[[Slopes | Groups, Tensor, Tensor], Multipliers]
"""Multipliers of a layer from its nonlinearity, ``W X^(-1/2)``, and the next matrix."""


def forward(network: Matrices, rule: Rule) -> tuple[list[Multipliers], Tensor]:
    """Choose multipliers layer by layer.

    Args:
        network: the chain, written out.
        rule: returns the multipliers of one layer.

    Returns:
        The multipliers, and the level that they seem to prove.
    """
    known = torch.eye(network.weights[0].shape[1], dtype=torch.float64)
    found: list[Multipliers] = []
    for kind, weight, after in zip(
        network.kinds, network.weights, network.weights[1:], strict=False
    ):
        found.append(rule(kind, _whitened(weight, known), after))
        known = behind_layer(form(kind, found[-1]), weight, known)
    level = _largest(_whitened(network.weights[-1], known))
    return [scaled(single, level) for single in found], level


def behind_layer(single: Form, weight: Tensor, known: Tensor) -> Tensor:
    """Return the matrix ``X`` after a layer, from the one before it."""
    inside = known
    if single.before.any():
        inside = known - weight.mT @ times(single.before, weight)
    # Schur complement of the layer's inequality: the input is eliminated.
    half = _whitened(times(single.cross, weight), inside)
    return as_matrix(single.after) - half @ half.mT


def _whitened(weight: Tensor, known: Tensor) -> Tensor:
    """Compute ``W C^-T``, where ``C C^T`` is the known matrix."""
    factor = torch.linalg.cholesky_ex(known).L
    half: Tensor = torch.linalg.solve_triangular(factor, weight.mT, upper=False)
    return half.mT


def _largest(weight: Tensor) -> Tensor:
    """Estimate the largest eigenvalue of ``W W^T``; no bound."""
    small = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    return _top(small @ small.mT)


def _top(matrix: Tensor) -> Tensor:
    """Return the largest eigenvalue of a symmetric matrix, NaN if it is not finite."""
    if not torch.isfinite(matrix).all():
        return torch.tensor(math.nan, dtype=torch.float64)
    largest: Tensor = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[-1]
    return largest


def fast(kind: Slopes | Groups, weight: Tensor, behind: Tensor) -> Multipliers:
    r"""Return the multipliers of ECLipsE-Fast, in closed form.

    The weight of slopes is the one for which the smallest eigenvalue of the next X is as large as
    it can be, :math:`1 / (\max(|a|, |b|)^2 \lambda_{max}(W X^{-1} W^T))`.
    """
    if isinstance(kind, Groups):
        return _of_sorting(kind, weight, behind)
    return SlopeMultipliers(closed_form(kind) * INSIDE / _largest(weight))


def closed_form(kind: Slopes) -> Tensor:
    """Compute ``1 / (h (|m| + h))``."""
    largest = torch.maximum(kind.low.abs(), kind.high.abs())
    half = torch.maximum((kind.high - kind.low) / 2, _FLAT * largest.max())
    return 1 / (half * ((kind.low + kind.high).abs() / 2 + half))


def _of_sorting(kind: Groups, weight: Tensor, behind: Tensor) -> Multipliers:
    r"""Choose multipliers for which remainders do not grow and the means of groups stay.

    For a weight :math:`\lambda` of the remainders the means may be eliminated exactly: with
    :math:`K = (M^{-1} - \lambda R)^{-1}` for :math:`M = V V^T`, V the weight that is given and R
    the projector onto the remainders, :math:`X` becomes
    :math:`\lambda R + U (U^T K U)^{-1} U^T`. Here K is :math:`V (I - \lambda V^T R V)^{-1} V^T`,
    which needs no inverse of M.
    """
    means = torch.nn.functional.one_hot(kind.index, kind.count).double()
    size = len(kind.index) // kind.count
    means = means / math.sqrt(size)
    remainders = weight - means @ (means.mT @ weight)
    peak = _largest(remainders).clamp_min(1e-30)
    among_inputs = remainders.mT @ remainders
    eye = torch.eye(len(among_inputs), dtype=torch.float64)
    rest = torch.eye(len(weight), dtype=torch.float64) - means @ means.mT
    shares = torch.tensor([*_SHARES, float(peak / _largest(weight)) * INSIDE])
    best, found = math.inf, None
    for share in shares.tolist():
        level = share / peak
        half = _whitened(means.mT @ weight, eye - level * among_inputs)
        among = half @ half.mT
        after = behind @ (rest / level + means @ among @ means.mT) @ behind.mT
        worst = float(_top(after))
        if found is None or worst < best:
            best, found = worst, (level, among)
    assert found is not None
    level, among = found
    least = 1e-9 * among.diagonal().max() * torch.eye(len(among), dtype=torch.float64)
    half = _whitened(torch.eye(len(among), dtype=torch.float64), among + least)
    weights = level.expand(kind.count)
    return GroupMultipliers(weights, half @ half.mT / size, -torch.diag(weights) / size)


def simple(kind: Slopes | Groups, weight: Tensor, behind: Tensor) -> Multipliers:  # noqa: ARG001
    """Return one weight per layer, well inside the cone: where interior-point methods start."""
    if isinstance(kind, Groups):
        weights = torch.full((kind.count,), 0.5, dtype=torch.float64) / _largest(weight)
        empty = torch.zeros(kind.count, kind.count, dtype=torch.float64)
        return GroupMultipliers(weights, empty, empty)
    numbers = closed_form(kind)
    return SlopeMultipliers(numbers.min().expand(len(numbers)) * 0.95 / _largest(weight))


def towards(
    start: list[Multipliers], level: Tensor, better: list[Multipliers], least: Tensor
) -> tuple[list[Multipliers], Tensor]:
    """Return multipliers close to better ones for which the matrix inequality holds strictly.

    It is linear in multipliers and level, so that any mean of two of them holds, and strictly if
    one of the two does. Of sorting only the weights are read, as searches start from no others.

    Args:
        start: multipliers with which the inequality holds strictly at ``level``.
        level: the level.
        better: multipliers with which it holds at ``least``.
        least: a smaller level.
    """
    if any(isinstance(single, GroupMultipliers) for single in start) or not 0 < least < level:
        return start, level
    share = float(least / level) / 4
    mixed: list[Multipliers] = [
        SlopeMultipliers((1 - share) * _ROOM * b.weights + share * a.weights)
        for a, b in zip(start, better, strict=True)
    ]
    return mixed, (1 - share) * _ROOM * least + share * level


def strictly(network: Matrices, rule: Rule = simple) -> tuple[list[Multipliers], Tensor]:
    """Return multipliers and a level at which the matrix inequality holds strictly."""
    found, level = forward(network, rule)
    return [scaled(single, _ROOM) for single in found], _ROOM * level
