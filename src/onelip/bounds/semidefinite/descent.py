r"""Multipliers of any plain network by gradients, where a matrix of all layers is too large.

For multipliers that hold at level 1, elimination from the first layer on gives :math:`X_{k+1}`
(``layerwise.behind_layer``), and they prove the level
:math:`\rho = \lambda_{\max}(W_L X_L^{-1} W_L^T)`, in which the semidefinite programme of LipSDP is
minimised over its level already. That is convex in the multipliers T where all X are positive. A
step costs some factorisations a layer, so the cube of the widths, whatever the depth. The optimum
lies where some X are singular, and descent alone gets stuck there: minimised is

.. math:: \log \rho - \mu \sum_k (\log\det X_{k+1} - \log\det T_k)

for falling :math:`\mu`, in the logarithms of T, by L-BFGS; instead of the largest eigenvalue a
p-norm of all, with a p that grows. Nothing here is a proof: that is what ``multipliers.proved`` is
for.

Reference: the programme of Fazlyab et al. (2019); first-order methods for it as in Wang, Hu,
Havens et al., "On the scalability and memory efficiency of semidefinite programs for Lipschitz
constant estimation of neural networks" (2024).
"""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import Multipliers, SlopeMultipliers
from onelip.bounds.semidefinite.matrices import Matrices, Slopes
from onelip.bounds.semidefinite.programmes import Optimum

_FIRST = 30.0  # mu, times the number of multipliers
_FALL = 0.3
_LAST = 1e-3
_DECREASE = 1e-4  # of the logarithm: a smaller one ends the search at one mu
_POWERS = (8.0, 200.0)  # p, at first and at last
_MEMORY = 20  # steps that L-BFGS remembers
_LONGEST = 1.0  # change of the logarithm of a multiplier in one step
_SHORTEST = 1e-6  # part of a step that is tried last
_SHRINK = 0.4
_ENOUGH = 1e-4  # of the decrease that the gradient promises
_SOFT = 4.0
_TINY = 1e-30  # weights that are 0 start here, in relation to the largest of their layer


def descended(
    network: Matrices, start: list[Multipliers], level: Tensor, *, seconds: float | None = None
) -> Optimum:
    """Return multipliers that prove about the smallest level, within about 1e-3.

    Args:
        network: the chain, written out; its nonlinearities are elementwise.
        start: multipliers that hold at ``level``.
        level: the square of a bound of the scaled chain.
        seconds: the time limit.
    """
    began = time.monotonic()
    search = _Search(network, began + (math.inf if seconds is None else seconds))
    weights = [single.weights / level for single in start]
    point = torch.cat([part.clamp_min(_TINY * part.max()).log() for part in weights])
    strength, count = _FIRST / len(point), len(point)
    while strength * count > _LAST and search.in_time():
        point = _minimised(search, point, strength)
        strength *= _FALL
    gap = 1 - math.exp(-min(strength / _FALL * count, 700.0))
    spent = time.monotonic() - began
    left = 0.0 if search.in_time() else spent * max(1.0, math.log(strength * count / _LAST))
    if not math.isfinite(search.best):
        return Optimum(start, level, 1.0, left)
    found = torch.tensor(math.exp(search.best), dtype=torch.float64)
    parts = search.at.exp().split(search.sizes)
    return Optimum([SlopeMultipliers(found * part) for part in parts], found, gap, left)


@dataclass
class _Search:
    """Objective of the search, and the smallest level that it met."""

    network: Matrices
    until: float
    best: float = math.inf  # logarithm of the level
    at: Tensor = field(default_factory=lambda: torch.zeros(0))
    longest: float = 0.0

    @property
    def sizes(self) -> list[int]:
        """Number of multipliers of each layer."""
        return [len(kind.low) for kind in self.network.kinds if isinstance(kind, Slopes)]

    def in_time(self) -> bool:
        """Whether another evaluation fits into the time."""
        return time.monotonic() + self.longest <= self.until

    def value(self, point: Tensor, strength: float) -> tuple[float, Tensor]:
        """Return objective and gradient; infinity where the multipliers do not hold."""
        began = time.monotonic()
        with torch.enable_grad():
            at = point.detach().requires_grad_(True)
            levels, barrier = self._levels(at.split(self.sizes))
            if levels is None:
                return math.inf, point
            power = min(max(_SOFT / (strength * len(point)), _POWERS[0]), _POWERS[1])
            largest = levels.detach().max()
            mean = (levels / largest).clamp_min(1e-12).pow(power).sum().log() / power
            total = largest.log() + mean - strength * barrier
            (gradient,) = torch.autograd.grad(total, at)
        self.longest = max(self.longest, time.monotonic() - began)
        if not (torch.isfinite(total) and torch.isfinite(gradient).all()):
            return math.inf, point
        if (reached := float(largest.log())) < self.best:
            self.best, self.at = reached, point
        return float(total.detach()), gradient

    def _levels(self, logarithms: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor]:
        """Eigenvalues whose largest is the level, None where there is none, and the barrier."""
        weights, barrier = self.network.weights, logarithms[0].new_zeros(())
        known = factor = torch.eye(weights[0].shape[1], dtype=torch.float64)
        for kind, weight, logarithm in zip(self.network.kinds, weights, logarithms, strict=False):
            assert isinstance(kind, Slopes)
            numbers, product = logarithm.exp(), kind.low * kind.high
            if product.any():
                before = numbers * product
                inside = known + weight.mT @ (before[:, None] * weight)
                factor, failed = torch.linalg.cholesky_ex(inside)
                if failed:
                    return None, barrier
            whitened = torch.linalg.solve_triangular(factor, weight.mT, upper=False)
            half = whitened * (numbers * (kind.low + kind.high) / 2)
            known = torch.diag(numbers) - half.mT @ half
            factor, failed = torch.linalg.cholesky_ex(known)
            if failed:
                return None, barrier
            barrier = barrier + 2 * factor.diagonal().log().sum() - logarithm.sum()
        whitened = torch.linalg.solve_triangular(factor, weights[-1].mT, upper=False)
        small = whitened if whitened.shape[0] < whitened.shape[1] else whitened.mT
        moment = small @ small.mT
        if not torch.isfinite(moment).all():
            return None, barrier
        levels: Tensor = torch.linalg.eigvalsh(moment)
        return (levels if bool(levels[-1] > 0) else None), barrier


def _minimised(search: _Search, point: Tensor, strength: float) -> Tensor:
    """Minimise the objective by L-BFGS, as far as the time goes."""
    value, gradient = search.value(point, strength)
    steps: list[tuple[Tensor, Tensor]] = []
    while math.isfinite(value) and search.in_time():
        direction = _direction(gradient, steps)
        slope = float(direction @ gradient)
        if not slope < 0:
            break
        length = min(1.0, _LONGEST / float(direction.abs().max()))
        while True:
            new, there = search.value(point + length * direction, strength)
            if new <= value + _ENOUGH * length * slope:
                break
            length *= _SHRINK
            if length < _SHORTEST or not search.in_time():
                return point
        move, turn = length * direction, there - gradient
        if move @ turn > 1e-12 * move.norm() * turn.norm():
            steps = [*steps, (move, turn)][-_MEMORY:]
        point, gained = point + move, value - new
        value, gradient = new, there
        if gained < _DECREASE:
            break
    return point


def _direction(gradient: Tensor, steps: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the direction of L-BFGS: minus the gradient times an inverse of the curvature."""
    found, shares = gradient.clone(), list[Tensor]()
    for move, turn in reversed(steps):
        shares.append((move @ found) / (move @ turn))
        found -= shares[-1] * turn
    if steps:
        move, turn = steps[-1]
        found *= (move @ turn) / (turn @ turn)
    else:
        found *= 0.3 / gradient.norm().clamp_min(1e-300)
    for (move, turn), share in zip(steps, reversed(shares), strict=True):
        found += move * (share - (turn @ found) / (move @ turn))
    return -found
