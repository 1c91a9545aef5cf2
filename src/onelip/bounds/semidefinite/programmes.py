r"""Multipliers as the unknowns of a semidefinite programme.

In general the programme is the inequality of ``multipliers.py`` itself: each multiplier weighs
products :math:`(x_i - a_i y_i)(x_i - b_i y_i)` for slopes in :math:`[a_i, b_i]`, and for sorting
:math:`(x_i - y_i)(x_i + y_i)` over a group, :math:`1^T (x - y) \, 1^T x` and
:math:`1^T (x - y) \, 1^T y`.

With one layer of slopes the inputs can be eliminated by hand. Let :math:`M = W_0 W_0^T`,
:math:`m = (a + b) / 2` and :math:`h = (b - a) / 2` as diagonal matrices. The inverse multipliers
:math:`\Gamma = T^{-1} \rho` minimise the largest eigenvalue of

.. math:: W_1 (\Gamma + m M m + m M h (\Gamma - h M h)^{-1} h M m) W_1^T ,

which is linear in :math:`\Gamma` as the inequality of the Schur complement that it comes from, of
the size of the layer and the outputs.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import GroupMultipliers, Multipliers, SlopeMultipliers
from onelip.bounds.semidefinite.interior_point import Programme, minimised
from onelip.bounds.semidefinite.matrices import Groups, Matrices, Slopes
from onelip.chains import Chain, Elementwise

_LARGEST = 1e6  # multipliers end at this times the largest that the search starts from
_SMALLEST = 1e-6  # and inverse ones at this times the smallest


@dataclass(frozen=True)
class _Unknowns:
    """Unknowns of a layer: weights, which stay positive, then two of any sign for each group."""

    kind: Slopes | Groups
    start: int
    weights: int

    @property
    def size(self) -> int:
        """Number of the layer's outputs."""
        return len(self.kind.low if isinstance(self.kind, Slopes) else self.kind.index)

    @property
    def free(self) -> int:
        """Number of unknowns of any sign."""
        return 2 * self.kind.count if isinstance(self.kind, Groups) else 0

    @property
    def stop(self) -> int:
        """Index after the layer's last unknown."""
        return self.start + self.weights + self.free

    def multipliers(self, point: Tensor) -> Multipliers:
        """Read the layer's multipliers from the vector of all unknowns."""
        own = point[self.start : self.stop]
        if isinstance(self.kind, Slopes):
            return SlopeMultipliers(own.expand(self.size))
        count = self.kind.count
        weights, free = own[: self.weights].expand(count), own[self.weights :]
        of_x, of_y = free[:count], free[count:]
        return GroupMultipliers(weights, torch.diag((of_x - of_y) / 2), torch.diag(of_y))


def coordinates(chain: Chain) -> int:
    """Number of rows of the matrix in the programme of a plain chain."""
    widths = [block.inner.rows for block in chain.blocks]
    if len(widths) == 1 and isinstance(chain.blocks[0].nonlinearity, Elementwise):
        return widths[0] + min(widths[0], chain.last.rows)
    return min(chain.blocks[0].inner.columns, widths[0]) + sum(widths)


class Optimum(NamedTuple):
    """Multipliers at which a search ended.

    Attributes:
        multipliers: one set per layer.
        level: the squared constant that they seem to prove.
        gap: how much less the best multipliers may prove, in relation to it, about.
        seconds: what the search would have taken longer, about; 0 if it ended by itself.
    """

    multipliers: list[Multipliers]
    level: Tensor
    gap: float
    seconds: float


def optimised(
    network: Matrices,
    start: list[Multipliers],
    level: Tensor,
    *,
    shared: bool = False,
    seconds: float | None = None,
) -> Optimum:
    """Return multipliers that prove about the smallest level.

    Args:
        network: the chain, written out.
        start: multipliers with which the inequality holds strictly at ``level``; those of groups
            must be weights only.
        level: the square of a bound.
        shared: whether all entries of a layer share one weight.
        seconds: the time limit; the multipliers returned are valid at the level returned.
    """
    values, layers = [level.reshape(1)], []
    for kind, single in zip(network.kinds, start, strict=True):
        weights = single.weights.min().reshape(1) if shared else single.weights
        layers.append(_Unknowns(kind, sum(map(len, values)), len(weights)))
        values += [weights, weights.new_zeros(layers[-1].free)]
    point = torch.cat(values)
    if len(layers) == 1 and isinstance(layers[0].kind, Slopes):
        inverse = torch.cat([point[:1], level / point[1:]])
        found = minimised(_one_layer(network, layers[0], inverse), inverse, seconds=seconds)
        point = torch.cat([found.point[:1], found.point[0] / found.point[1:]])
    else:
        found = minimised(_all_layers(network, layers, point), point, seconds=seconds)
        point = found.point
    multipliers = [layer.multipliers(point) for layer in layers]
    return Optimum(multipliers, point[0], found.gap, found.seconds)


def _one_layer(network: Matrices, layer: _Unknowns, start: Tensor) -> Programme:
    """Build the programme of the inverse multipliers: outputs first, then the layer."""
    assert isinstance(layer.kind, Slopes)
    first, last = network.weights
    if last.shape[0] > last.shape[1]:
        last = torch.linalg.qr(last, mode="r").R  # the same norms, fewer rows
    middle, half = (layer.kind.low + layer.kind.high) / 2, (layer.kind.high - layer.kind.low) / 2
    moment = first @ first.mT
    passed = last * middle
    corner = passed @ moment * half
    constant = torch.cat(
        [
            torch.cat([-passed @ moment @ passed.mT, corner], 1),
            torch.cat([corner.mT, -half[:, None] * moment * half], 1),
        ]
    )
    place = torch.arange(layer.size)
    one = torch.ones(layer.size, dtype=torch.float64)
    left = [(place, place, one), (place, place + layer.size, one)]
    right = [(place, place, one), (place, place + layer.size, -one)]
    low, high = torch.full_like(start, -math.inf), torch.full_like(start, math.inf)
    low[1:], high[1:] = _SMALLEST * start[1:].min(), _LARGEST * start[1:].max()
    return Programme(
        constant,
        len(last),
        last,
        _sparse(left, layer.size, layer.size),
        _sparse(right, layer.size, layer.size),
        layer.start + (place if layer.weights > 1 else 0 * place),
        low,
        high,
    )


def _all_layers(network: Matrices, layers: list[_Unknowns], start: Tensor) -> Programme:
    """Build the programme of the inequality itself: the input first, then layer by layer."""
    first = network.weights[0]
    if first.shape[0] < first.shape[1]:
        # W_0 acts on its row space only: a square factor has the same W_0 W_0^T.
        first = torch.linalg.qr(first.mT, mode="r").R.mT
    weights = [first, *network.weights[1:-1]]
    size = first.shape[1] + sum(layer.size for layer in layers)
    constant = first.new_zeros(size, size)
    last = slice(size - layers[-1].size, None)
    constant[last, last] = -network.weights[-1].mT @ network.weights[-1]
    low, high = torch.full_like(start, -math.inf), torch.full_like(start, math.inf)
    for layer in layers:
        own = slice(layer.start, layer.stop)
        high[own] = _LARGEST * start[own].max()
        low[own] = -high[own]
        low[layer.start : layer.start + layer.weights] = 0
    left, right, owner = _products(layers)
    before = torch.block_diag(*(weight.mT for weight in weights))
    return Programme(constant, first.shape[1], before, left, right, owner, low, high)


_Entries = list[tuple[Tensor, Tensor, Tensor]]  # rows, columns and values of a sparse matrix


def _products(layers: list[_Unknowns]) -> tuple[Tensor, Tensor, Tensor]:
    """List the products that multipliers weigh: left and right factors, and the unknown of each."""
    entries, first, count = sum(layer.size for layer in layers), 0, 0
    left: _Entries = []
    right: _Entries = []
    owners: list[Tensor] = []
    for layer in layers:
        x, kind = first + torch.arange(layer.size), layer.kind
        y, row = x + entries, count + torch.arange(layer.size)
        one = torch.ones(layer.size, dtype=torch.float64)
        low, high = (kind.low, kind.high) if isinstance(kind, Slopes) else (one, -one)
        left += [(row, x, one), (row, y, -low)]
        right += [(row, x, one), (row, y, -high)]
        index = kind.index if isinstance(kind, Groups) else torch.arange(layer.size)
        owners.append(layer.start + (index if layer.weights > 1 else 0 * index))
        first, count = first + layer.size, count + layer.size
        if isinstance(kind, Groups):
            for other in (x, y):
                row = count + index
                left += [(row, x, one), (row, y, -one)]
                right += [(row, other, one)]
                count += kind.count
            owners.append(torch.arange(layer.start + layer.weights, layer.stop))
    return _sparse(left, count, entries), _sparse(right, count, entries), torch.cat(owners)


def _sparse(parts: _Entries, products: int, entries: int) -> Tensor:
    """Build a sparse matrix from rows, columns and values."""
    rows, columns, values = (torch.cat(column) for column in zip(*parts, strict=True))
    place, shape = torch.stack([rows, columns]), (products, 2 * entries)
    return torch.sparse_coo_tensor(place, values, shape, check_invariants=False).coalesce()
