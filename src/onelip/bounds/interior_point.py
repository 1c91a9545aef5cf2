r"""The best multipliers, by Newton's method on the barrier of the matrix inequality.

Minimise :math:`\rho` such that :math:`Q(\rho, x) = \rho E - W_L^T W_L + \sum_p x_p (u_p v_p^T +
v_p u_p^T) / 2` is positive semidefinite, where each multiplier x weighs one or more products of two
linear functions: :math:`(dx_i - a_i dy_i) (dx_i - b_i dy_i)` for slopes in :math:`[a_i, b_i]`. With
:math:`Z = Q^{-1}` the second derivatives of :math:`-\log \det Q` are
:math:`\tfrac12 (u_p^T Z u_q \; v_p^T Z v_q + u_p^T Z v_q \; v_p^T Z u_q)`: a few matrix products for
all of them. Every iterate is feasible, so one may stop at any time. Nothing here is a proof: the
multipliers go through ``multipliers.proved``.

Reference: Boyd and Vandenberghe, "Convex Optimization" (2004), chapter 11.
"""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onelip.bounds.matrices import Groups, Matrices, Slopes
from onelip.bounds.multipliers import (
    GroupMultipliers,
    Multipliers,
    SlopeMultipliers,
    as_matrix,
    form,
    times,
)

TOLERANCE = 1e-7  # relative gap at which the search ends
_FASTER = 12.0  # growth of the weight of the objective
_STEPS = 30  # Newton steps for one weight, at most
_CENTRED = 0.05  # Newton decrement at which the weight grows
_LARGEST = 1e4  # multipliers end at this times the largest that the search starts from


@dataclass(frozen=True)
class _Layer:
    """Which unknowns belong to a layer, and how they act."""

    kind: Slopes | Groups
    start: int  # of its unknowns
    weights: int  # how many unknowns are weights, which stay positive
    size: int  # entries

    @property
    def free(self) -> int:
        """Unknowns of any sign: two for each group."""
        return 2 * self.kind.count if isinstance(self.kind, Groups) else 0

    def multipliers(self, unknowns: Tensor) -> Multipliers:
        own = unknowns[self.start : self.start + self.weights + self.free]
        if isinstance(self.kind, Slopes):
            return SlopeMultipliers(own.expand(self.size) if self.weights == 1 else own)
        count = self.kind.count
        weights, free = own[: self.weights].expand(count), own[self.weights :]
        outer, inner = free[:count], free[count:]
        return GroupMultipliers(weights, torch.diag((outer - inner) / 2), torch.diag(inner))


@dataclass(frozen=True)
class _Pairs:
    """The products ``u v``, as combinations of entries behind layers and before nonlinearities."""

    left: Tensor  # sparse (products, 2 entries)
    right: Tensor
    owner: Tensor  # which unknown weighs a product


def minimised(
    network: Matrices,
    start: list[Multipliers],
    level: Tensor,
    *,
    shared: bool = False,
    seconds: float | None = None,
) -> tuple[list[Multipliers], Tensor]:
    """Multipliers that minimise the level they prove, about, and that level.

    Args:
        network: the chain, written out.
        start: multipliers with which the inequality holds strictly at ``level``; those of groups
            must be weights only.
        level: the square of a bound.
        shared: one weight for all entries of a layer.
        seconds: when to stop; every iterate is good for a bound.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    layers, point = _unknowns(network, start, level, shared=shared)
    problem = _Problem(_narrowed(network), layers, _pairs(layers), _limits(layers, point))
    sharpness = problem.degree / level
    while time.monotonic() < until:
        for _ in range(_STEPS):
            point, decrement = problem.step(point, sharpness)
            if decrement < _CENTRED or time.monotonic() > until:
                break
        if problem.degree / sharpness < TOLERANCE * point[0]:
            break
        sharpness = sharpness * _FASTER
    return [layer.multipliers(point) for layer in layers], point[0]


def _unknowns(
    network: Matrices, start: list[Multipliers], level: Tensor, *, shared: bool
) -> tuple[list[_Layer], Tensor]:
    layers, values, used = [], [level.reshape(1)], 1
    for kind, single in zip(network.kinds, start, strict=True):
        weights = single.weights.min().reshape(1) if shared else single.weights
        size = len(kind.low) if isinstance(kind, Slopes) else len(kind.index)
        layer = _Layer(kind, used, len(weights), size)
        values += [weights, weights.new_zeros(layer.free)]
        used += len(weights) + layer.free
        layers.append(layer)
    return layers, torch.cat(values)


def _limits(layers: list[_Layer], point: Tensor) -> tuple[Tensor, Tensor]:
    """Between which numbers each unknown stays."""
    low, high = torch.zeros_like(point), torch.full_like(point, math.inf)
    for layer in layers:
        own = slice(layer.start, layer.start + layer.weights + layer.free)
        high[own] = _LARGEST * point[own].max()
        low[layer.start + layer.weights : own.stop] = -high[layer.start]
    return low, high


def _narrowed(network: Matrices) -> Matrices:
    """The same with a square first matrix where it had more columns than rows."""
    first = network.weights[0]
    if first.shape[0] < first.shape[1]:
        first = torch.linalg.qr(first.mT, mode="r").R.mT
    return replace(network, weights=[first, *network.weights[1:]])


def _pairs(layers: list[_Layer]) -> _Pairs:
    entries = sum(layer.size for layer in layers)
    rows: list[Tensor] = []  # of product, entry, coefficient left and coefficient right
    owners: list[Tensor] = []
    first, products = 0, 0
    for layer in layers:
        behind = torch.arange(first, first + layer.size)
        one = torch.ones(layer.size, dtype=torch.float64)
        own = products + torch.arange(layer.size)
        low, high = (layer.kind.low, layer.kind.high) if isinstance(layer.kind, Slopes) else (one, -one)
        rows += _row(own, behind, one, one) + _row(own, behind + entries, -low, -high)
        index = layer.kind.index if isinstance(layer.kind, Groups) else torch.arange(layer.size)
        owners.append(layer.start + (index if layer.weights > 1 else 0 * index))
        products += layer.size
        if isinstance(layer.kind, Groups):
            for place, (x, y) in enumerate(((one, 0 * one), (0 * one, one))):
                own = products + index
                rows += _row(own, behind, one, x) + _row(own, behind + entries, -one, y)
                count = layer.kind.count
                unknown = layer.start + layer.weights + place * count
                owners.append(unknown + torch.arange(count))
                products += count
        first += layer.size
    table = torch.cat([row for row in rows], 1)
    shape = (products, 2 * entries)
    left, right = (
        torch.sparse_coo_tensor(table[:2].long(), table[side], shape, check_invariants=False).coalesce() for side in (2, 3)
    )
    return _Pairs(left, right, torch.cat(owners))


def _row(product: Tensor, entry: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
    return [torch.stack([product.double(), entry.double(), left, right])]


@dataclass(frozen=True)
class _Problem:
    network: Matrices
    layers: list[_Layer]
    pairs: _Pairs
    limits: tuple[Tensor, Tensor]

    @property
    def degree(self) -> int:
        """Of the barrier: the gap at the centre is this, divided by the weight of the objective."""
        bounded = sum(int(limit.isfinite().sum()) for limit in self.limits)
        return sum(self.sizes) + bounded

    @property
    def sizes(self) -> list[int]:
        """How many numbers the input and each layer have."""
        return [weight.shape[1] for weight in self.network.weights]

    def matrix(self, point: Tensor) -> Tensor:
        """Q."""
        sizes, weights = self.sizes, self.network.weights
        starts = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
        at = [slice(a, b) for a, b in zip(starts, starts[1:], strict=False)]
        whole = point.new_zeros(starts[-1], starts[-1])
        whole[at[0], at[0]] = point[0] * torch.eye(sizes[0], dtype=torch.float64)
        whole[at[-1], at[-1]] -= weights[-1].mT @ weights[-1]
        for k, layer in enumerate(self.layers):
            single = form(layer.kind, layer.multipliers(point))
            whole[at[k + 1], at[k + 1]] += as_matrix(single.after)
            corner = times(single.cross, weights[k])
            whole[at[k + 1], at[k]] -= corner
            whole[at[k], at[k + 1]] -= corner.mT
            if single.before.any():
                whole[at[k], at[k]] -= weights[k].mT @ times(single.before, weights[k])
        return whole

    def value(self, point: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        """The objective with its barriers, NaN outside, and the Cholesky factor."""
        factor, failed = torch.linalg.cholesky_ex(self.matrix(point))
        low, high = self.limits
        barriers = torch.log(point - low).sum() + torch.log((high - point)[1:]).sum()
        value = sharpness * point[0] - 2 * factor.diagonal().log().sum() - barriers
        return value if not failed else value * math.nan, factor

    def step(self, point: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        """One damped Newton step, and the decrement before it."""
        value, factor = self.value(point, sharpness)
        gradient, curvature = self.derivatives(factor)
        low, high = self.limits
        below, above = 1 / (point - low), 1 / (high - point)
        gradient = gradient + above - below
        gradient[0] += sharpness
        curvature.diagonal().add_(below.square() + above.square())
        scale = curvature.diagonal().rsqrt()
        scaled = curvature * scale * scale[:, None]
        scaled.diagonal().add_(1e-14)
        root = torch.linalg.cholesky_ex(scaled).L
        move = -scale * torch.cholesky_solve((scale * gradient)[:, None], root)[:, 0]
        decrement = -(gradient @ move)
        room = torch.where(move < 0, (low - point) / move, (high - point) / move)
        length = float((0.99 * room[move != 0].min()).clamp_max(1))
        while length > 1e-8:
            found, _ = self.value(point + length * move, sharpness)
            if found <= value - 0.01 * length * decrement:
                return point + length * move, decrement
            length /= 2
        return point, torch.zeros_like(decrement)

    def derivatives(self, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``-log det Q``: gradient and Hessian."""
        inverse = torch.cholesky_inverse(factor)
        sizes = self.sizes
        ahead = len(inverse) - sizes[-1]
        weights = torch.block_diag(*(weight.mT for weight in self.network.weights[:-1]))
        images = inverse[:, :ahead] @ weights
        hidden = slice(sizes[0], None)
        across = images[hidden]
        gram = torch.cat([
            torch.cat([inverse[hidden, hidden], across], 1),
            torch.cat([across.mT, weights.mT @ images[:ahead]], 1),
        ])
        first = torch.cat([inverse[: sizes[0], hidden], images[: sizes[0]]], 1)
        left, right = self.pairs.left, self.pairs.right
        half = torch.sparse.mm(left, gram).mT
        mixed = torch.sparse.mm(right, half).mT
        both = torch.sparse.mm(left, half) * torch.sparse.mm(right, torch.sparse.mm(right, gram).mT)
        second = (both + mixed * mixed.mT) / 2
        beside = (torch.sparse.mm(left, first.mT) * torch.sparse.mm(right, first.mT)).sum(1)
        count = self.limits[0].shape[0]
        owner = self.pairs.owner
        gradient = inverse.new_zeros(count).index_add(0, owner, -mixed.diagonal())
        gradient[0] = -inverse[: sizes[0], : sizes[0]].trace()
        rows = inverse.new_zeros(count, len(owner)).index_add(0, owner, second)
        curvature = inverse.new_zeros(count, count).index_add(1, owner, rows)
        edge = inverse.new_zeros(count).index_add(0, owner, beside)
        curvature[0], curvature[:, 0] = edge, edge
        curvature[0, 0] = inverse[: sizes[0], : sizes[0]].square().sum()
        return gradient, curvature
