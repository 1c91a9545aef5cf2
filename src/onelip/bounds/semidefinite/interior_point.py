r"""A primal-dual interior-point method for the multipliers of quadratic forms.

Minimise t such that :math:`S = A_0 + t E + \sum_p x_p (u_p v_p^T + v_p u_p^T) / 2` is positive
semidefinite, each unknown x within limits and shared by one or more products. All u and v are
combinations of few vectors, so that the matrix of a Newton step comes from two Gram matrices, of
the dual matrix X and of :math:`S^{-1}`,

.. math:: \tfrac14 (u_p^T X u_q \, v_p^T S^{-1} v_q + v_p^T X v_q \, u_p^T S^{-1} u_q
   + v_p^T X u_q \, u_p^T S^{-1} v_q + u_p^T X v_q \, v_p^T S^{-1} u_q) :

some ten products of matrices, where a general solver goes through all pairs of unknowns. Every
iterate is feasible, so one may stop at any time. Nothing here is a proof: the result is proved
by ``multipliers.proved``.

Reference: Helmberg, Rendl, Vanderbei and Wolkowicz, "An interior-point method for semidefinite
programming" (1996), with Mehrotra's corrector.
"""

import math
import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

TOLERANCE = 1e-8  # relative gap at which the search ends
_STEPS = 100
_USUAL = 25  # steps that a search takes, about
_SHRINK = 0.75  # of steps that leave the cone
_HALVINGS = 3  # of what is left between a step that stays and one that leaves
_BACK = 0.95  # of the way to the boundary
_SHORTEST = 1e-6  # step that ends the search


@dataclass(frozen=True)
class Programme:
    """Semidefinite programme of the form at the top of the file.

    The first unknown is t. Vectors u and v combine the columns of ``[after, before]``: unit
    vectors of the last coordinates, and a dense matrix on the first ones.

    Attributes:
        constant: A_0, the matrix where all unknowns are 0.
        first: E is the identity on this many first coordinates.
        before: ``(coordinates, entries)``, the dense matrix.
        left: sparse ``(products, 2 entries)``, the coefficients of u.
        right: the coefficients of v.
        owner: index of the unknown of each product.
        low: limits from below, minus infinity for none.
        high: limits from above, infinity for none.
    """

    constant: Tensor
    first: int
    before: Tensor
    left: Tensor
    right: Tensor
    owner: Tensor
    low: Tensor
    high: Tensor

    @property
    def entries(self) -> int:
        """Number of unit vectors, which end with the last coordinate."""
        return self.before.shape[1]

    def linear(self, point: Tensor) -> Tensor:
        """Compute ``S - A_0`` at a point."""
        size, ahead = len(self.constant), len(self.before)
        weighted = self.left * point[self.owner][:, None]
        core = torch.sparse.mm(weighted.t(), self.right.to_dense())
        core = (core + core.mT) / 2
        inner, across, outer = (
            core[: self.entries, : self.entries],
            core[: self.entries, self.entries :],
            core[self.entries :, self.entries :],
        )
        found = point.new_zeros(size, size)
        hidden = slice(size - self.entries, None)
        found[hidden, hidden] += inner
        corner = across @ self.before.mT
        found[hidden, :ahead] += corner
        found[:ahead, hidden] += corner.mT
        if outer.any():
            found[:ahead, :ahead] += self.before @ outer @ self.before.mT
        found.diagonal()[: self.first] += point[0]
        return found

    def gram(self, matrix: Tensor) -> "_Gram":
        """Compute all ``u^T G u``, ``u^T G v`` and ``v^T G v``."""
        size, ahead = len(matrix), len(self.before)
        hidden = slice(size - self.entries, None)
        images = matrix[:, :ahead] @ self.before
        inner, across = matrix[hidden, hidden], images[hidden]
        outer = self.before.mT @ images[:ahead]
        whole = torch.cat([torch.cat([inner, across], 1), torch.cat([across.mT, outer], 1)])
        half = torch.sparse.mm(self.left, whole).mT
        top = torch.cat([matrix[: self.first, hidden], images[: self.first]], 1).mT
        return _Gram(
            torch.sparse.mm(self.left, half),
            torch.sparse.mm(self.right, half).mT,
            torch.sparse.mm(self.right, torch.sparse.mm(self.right, whole).mT),
            torch.sparse.mm(self.left, top),
            torch.sparse.mm(self.right, top),
        )

    def gradient(self, matrix: Tensor, mixed: Tensor) -> Tensor:
        """Inner products with the matrices of all unknowns; ``mixed`` has those of the products."""
        sums = self.low.new_zeros(len(self.low)).index_add(0, self.owner, mixed)
        sums[0] = matrix.diagonal()[: self.first].sum()
        return sums

    def pairings(self, matrix: Tensor) -> Tensor:
        """Compute ``u^T G v`` of each product alone."""
        size, ahead = len(matrix), len(self.before)
        hidden = matrix[:, size - self.entries :]
        basis = torch.cat([hidden, matrix[:, :ahead] @ self.before], 1)  # G [after, before]
        images = torch.sparse.mm(self.right, basis.mT)  # rows G v
        rows = torch.cat([images[:, size - self.entries :], images[:, :ahead] @ self.before], 1)
        return (self.left * rows).sum(1).to_dense()

    def schur(self, dual: Tensor, inverse: Tensor, of_dual: "_Gram", of_inverse: "_Gram") -> Tensor:
        """Matrix of a Newton step, without the limits."""
        x, z = of_dual, of_inverse
        second = x.left * z.right
        second += x.right * z.left
        turned = x.mixed.mT * z.mixed
        second = (second + turned + turned.mT) / 4
        count = len(self.low)
        rows = second.new_zeros(count, len(second)).index_add(0, self.owner, second)
        matrix = second.new_zeros(count, count).index_add(1, self.owner, rows)
        beside = (x.top_left * z.top_right + x.top_right * z.top_left).sum(1) / 2
        edge = second.new_zeros(count).index_add(0, self.owner, beside)
        matrix[0], matrix[:, 0] = edge, edge
        top = slice(0, self.first)
        matrix[0, 0] = (dual[top, top] * inverse[top, top]).sum()
        return matrix


class _Gram(NamedTuple):
    """Gram matrices of u and v in the metric of a symmetric matrix."""

    left: Tensor
    mixed: Tensor
    right: Tensor
    top_left: Tensor
    top_right: Tensor


class _State(NamedTuple):
    """Iterate of the method: primal and dual variables."""

    point: Tensor
    slack: Tensor  # S
    dual: Tensor  # X
    below: Tensor  # dual variables of the limits, 0 where there is none
    above: Tensor


class Minimum(NamedTuple):
    """Point at which a search ended.

    Attributes:
        point: the unknowns, t first; feasible in any case.
        gap: duality gap in relation to t: how much less the minimum may be, about.
        seconds: what the search would have taken longer, about; 0 if it ended by itself.
    """

    point: Tensor
    gap: float
    seconds: float


@torch.no_grad()
def minimised(programme: Programme, start: Tensor, *, seconds: float | None = None) -> Minimum:
    """Return the unknowns, t first, at about the smallest t.

    Args:
        programme: the programme.
        start: unknowns strictly within all limits.
        seconds: the time limit: no step begins that takes longer than what is left, if it takes as
            long as the longest until then.
    """
    began = time.monotonic()
    until = math.inf if seconds is None else began + seconds
    state, point, gap, longest = _started(programme, start), start, math.inf, 0.0
    for count in range(_STEPS):
        if state is None:
            break
        point, gap = state.point, float(_gap(programme, state) / state.point[0].abs())
        if gap < TOLERANCE:
            break
        now = time.monotonic()
        if now + longest > until:
            return Minimum(point, gap, max(_USUAL - count, 1) * longest)
        state = _step(programme, state)
        longest = max(longest, time.monotonic() - now)
    return Minimum(point, gap, 0.0)


def _started(programme: Programme, point: Tensor) -> _State | None:
    """Return the first state, with a dual matrix on the central path; None if not feasible."""
    slack = programme.constant + programme.linear(point)
    factor, failed = torch.linalg.cholesky_ex(slack)
    if failed or not torch.isfinite(factor).all():
        return None
    inverse = torch.cholesky_inverse(factor)
    scale = 1 / inverse.diagonal()[: programme.first].sum()
    below, above = (scale * part for part in _barriers(programme, point))
    return _State(point, slack, scale * inverse, below, above)


def _barriers(programme: Programme, point: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses of the distances from the limits, 0 where there is none."""
    return 1 / (point - programme.low), 1 / (programme.high - point)


def _gap(programme: Programme, state: _State) -> Tensor:
    """Duality gap: the inner product of primal and dual slacks."""
    down, up = _barriers(programme, state.point)
    limits = (state.below / down).nan_to_num(0).sum() + (state.above / up).nan_to_num(0).sum()
    return (state.dual * state.slack).sum() + limits


def _step(programme: Programme, state: _State) -> _State | None:
    """Take a predictor and a corrector step; None where rounding allows no more progress."""
    point, slack, dual, below, above = state
    factor, failed = torch.linalg.cholesky_ex(slack)
    if failed:
        return None
    inverse = torch.cholesky_inverse(factor)
    down, up = _barriers(programme, point)
    of_inverse = programme.gram(inverse)
    matrix = programme.schur(dual, inverse, programme.gram(dual), of_inverse)
    matrix.diagonal().add_(below * down + above * up)
    # Jacobi scaling, then a tiny shift: the system is ill-conditioned near the optimum.
    scale = matrix.diagonal().rsqrt()
    matrix = matrix * scale * scale[:, None]
    matrix.diagonal().add_(1e-15)
    root, failed = torch.linalg.cholesky_ex(matrix)
    if failed or not torch.isfinite(root).all():
        return None
    barrier = programme.gradient(inverse, of_inverse.mixed.diagonal()) + down - up
    degree = len(slack) + int((down > 0).sum()) + int((up > 0).sum())
    mean = _gap(programme, state) / degree
    cost = torch.zeros_like(point)
    cost[0] = 1

    def direction(target: Tensor, twice: Tensor, low: Tensor, high: Tensor) -> "_State":
        """Towards the central path at ``target``, with what the predictor left out."""
        again = programme.gradient(twice, programme.pairings(twice)) if twice.any() else 0
        right = target * barrier - cost - again - low + high
        move = scale * torch.cholesky_solve((scale * right)[:, None], root)[:, 0]
        change = programme.linear(move)
        turned = dual @ change @ inverse
        turn = target * inverse - dual - (turned + turned.mT) / 2 - twice
        lower = target * down - below - below * down * move - low
        upper = target * up - above + above * up * move - high
        return _State(move, change, turn, lower, upper)

    nothing = torch.zeros_like(point)
    first = direction(mean * 0, torch.zeros_like(slack), nothing, nothing)
    far, wide = _lengths(programme, state, first)
    ahead = _moved(state, first, far, wide)
    # Mehrotra's rule: the better the predictor does, the smaller the target.
    share = (_gap(programme, ahead) / degree / mean).clamp(0, 1) ** 3
    turned = first.dual @ first.slack @ inverse
    second = direction(
        share.clamp_min(1e-4) * mean,
        (turned + turned.mT) / 2,
        first.below * first.point * down,
        -first.above * first.point * up,
    )
    far, wide = _lengths(programme, state, second)
    if far < _SHORTEST:
        return None
    return _moved(state, second, far, wide)


def _moved(state: _State, move: _State, far: float, wide: float) -> _State:
    """Move primal variables by ``far`` and dual ones by ``wide``."""
    return _State(
        state.point + far * move.point,
        state.slack + far * move.slack,
        state.dual + wide * move.dual,
        state.below + wide * move.below,
        state.above + wide * move.above,
    )


def _lengths(programme: Programme, state: _State, move: _State) -> tuple[float, float]:
    """Step sizes of the unknowns and of the dual variables."""
    down, up = _barriers(programme, state.point)
    far = _room(torch.cat([down * move.point, -up * move.point]))
    wide = _room(torch.cat([move.below / state.below, move.above / state.above]).nan_to_num(0))
    return (
        _within(state.slack, move.slack, far),
        _within(state.dual, move.dual, wide),
    )


def _room(relative: Tensor) -> float:
    """Largest step size up to 1 that keeps numbers positive, a little less."""
    lowest = float(relative.min())
    return 1.0 if lowest >= -_BACK else -_BACK / lowest


def _within(matrix: Tensor, move: Tensor, longest: float) -> float:
    """Largest step size found that keeps a matrix positive definite, a little less."""
    length, outside = longest, longest
    while length > _SHORTEST and torch.linalg.cholesky_ex(matrix + length * move).info:
        outside, length = length, length * _SHRINK
    if length == longest:
        return length
    for _ in range(_HALVINGS):
        middle = (length + outside) / 2
        if torch.linalg.cholesky_ex(matrix + middle * move).info:
            outside = middle
        else:
            length = middle
    return _BACK * length
