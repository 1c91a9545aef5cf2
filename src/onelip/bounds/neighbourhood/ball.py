r"""Intervals of the slopes of a network's units in a ball, and the constants that follow.

With centres C and half widths R of the slopes of a layer, the recursion of LipLT (Fazlyab et al.,
2023, equation 19) bounds linear images of a layer's output, for each sample separately:

.. math:: \mathrm{Lip}(T x_k) \le \|T C_{k-1} W_{k-1} \cdots C_0 W_0\| + \sum_{j < k}
          \|T C_{k-1} W_{k-1} \cdots W_{j+1} R_j^{1/2}\| \, \mathrm{Lip}(R_j^{1/2} W_j x_j) .

A unit that cannot switch has :math:`R = 0`. Row by row, the bound limits how far each unit of
the next layer can move in the ball, hence which units can switch. The product of norms of masked
matrices (Huang et al., 2021) is taken where it is smaller.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.dense_layers import Affine, Layer, Point
from onelip.bounds.neighbourhood.slopes import Interval, local_slopes
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward


class Approx(NamedTuple):
    """Matrices ``(batch or 1, rows, columns)``, each off by ``error`` in Frobenius norm at most."""

    matrix: Tensor
    error: Tensor

    def times(self, affine: Affine) -> "Approx":
        """Return the products with a linear map, applied before these matrices."""
        size, columns = frobenius(self.matrix), self.matrix.shape[2]
        # (M + dM)(A + dA) = MA + dM (A + dA) + M dA; the first term uses the exact norm of A + dA.
        new = size * (affine.error + gamma(columns) * frobenius(affine.matrix))
        lost = columns * self.matrix.shape[1] * affine.matrix.shape[1] * UNDERFLOW
        error = upward(self.error * affine.norm + new + lost, 8)
        return Approx(self.matrix @ affine.matrix, error)

    def scaled(self, columns: Tensor) -> "Approx":
        """Scale each column by a number, ``(batch, columns)``."""
        matrix = self.matrix * columns[:, None]
        largest = columns.abs().amax(1) if columns.shape[1] else columns.new_zeros(len(columns))
        lost = matrix[0].numel() * UNDERFLOW
        return Approx(matrix, upward(self.error * largest + 2 * UNIT * frobenius(matrix) + lost, 8))

    def plus(self, other: "Approx") -> "Approx":
        """Return the sum."""
        matrix = self.matrix + other.matrix
        new = 2 * UNIT * frobenius(matrix)
        return Approx(matrix, upward(self.error + other.error + new, 4))

    @property
    def transposed(self) -> "Approx":
        """The transposed matrices."""
        return Approx(self.matrix.mT, self.error)

    @property
    def lengths(self) -> Tensor:
        """Bounds of the norms of the rows, ``(batch, rows)``."""
        return upward(frobenius(self.matrix[:, :, None]) + self.error[:, None], 1)

    @property
    def norms(self) -> Tensor:
        """Bounds of the spectral norms, ``(batch,)``."""
        return each(self.matrix, self.error)


@dataclass(frozen=True)
class Weights:
    """Nonzero weights of the units of a layer, per sample.

    Attributes:
        index: the units, ``(batch, kept)``, padded by units of weight 0.
        weight: their weights.
        constant: Lipschitz constant of the weighted inputs of the units, ``(batch,)``.
        entries: the same for each unit alone, ``(batch, kept)``.
    """

    index: Tensor
    weight: Tensor
    constant: Tensor
    entries: Tensor

    def of(self, rows: Approx) -> Approx:
        """Select the columns of these units, weighted."""
        index = self.index[:, None].expand(-1, rows.matrix.shape[1], -1)
        matrix = rows.matrix.expand(len(index), -1, -1)
        return Approx(matrix.gather(2, index), rows.error.expand(len(index))).scaled(self.weight)


class Unit(NamedTuple):
    """Bounds of the slopes of a layer's units in the balls of a batch."""

    centre: Tensor  # of the slopes, (batch, units)
    half: Weights  # roots of half their widths
    mass: Weights  # roots of their largest absolute values


class Paths(NamedTuple):
    """Linear image of the last layer's output, split by the layer where a path ends."""

    linear: Approx  # from the input, through the centres of all slopes
    through: list[Approx]  # from the units of each layer, times the roots of their half widths
    masked: Approx | None  # from the units of the last layer, times the roots of their masses


class Balls:
    """Balls of a radius around a batch of inputs, propagated through a network.

    Attributes:
        output: output of the layers at the centres.
    """

    def __init__(self, layers: list[Layer], x: Tensor, radius: Tensor) -> None:
        self._layers: list[Layer] = []
        self._units: list[Unit] = []
        self._radius = radius
        zero = torch.zeros_like(x)
        self.output = Point(x, zero, zero[:, 0])
        for layer in layers:
            self._enter(layer)

    def paths(self, rows: Approx) -> Paths:
        """Trace a linear image of the output back to the input."""
        through: list[Approx] = []
        masked = None
        for layer, units in zip(reversed(self._layers), reversed(self._units), strict=True):
            entering = rows if layer.outer is None else rows.times(layer.outer)
            if not through and layer.skip is None:
                masked = units.mass.of(entering)
            through.append(units.half.of(entering))
            before = entering.scaled(units.centre).times(layer.inner)
            rows = before if layer.skip is None else before.plus(rows.times(layer.skip))
        linear = Approx(
            rows.matrix.expand(len(self._radius), -1, -1), rows.error.expand(len(self._radius))
        )
        return Paths(linear, through[::-1], masked)

    def lengths(self, paths: Paths) -> Tensor:
        """Lipschitz constants, over the ball, of each row of the image: ``(batch, rows)``."""
        total = paths.linear.lengths
        for part, units in zip(paths.through, self._units, strict=True):
            total = upward(total + _least(part, units.half), 1)
        if paths.masked is not None:
            total = torch.fmin(total, _least(paths.masked, self._units[-1].mass))
        return total

    def norms(self, paths: Paths) -> Tensor:
        """Lipschitz constants, over the ball, of the image: ``(batch,)``."""
        total = paths.linear.norms
        for part, units in zip(paths.through, self._units, strict=True):
            total = upward(total + upward(part.norms * units.half.constant, 1), 1)
        if paths.masked is not None:
            masked = paths.masked.norms * self._units[-1].mass.constant
            total = torch.fmin(total, upward(masked, 1))
        return total

    def _enter(self, layer: Layer) -> None:
        """Extend the balls by one layer."""
        rows = Approx(layer.inner.matrix[None], layer.inner.error[None])
        paths = self.paths(rows)
        lengths = self.lengths(paths)
        before = layer.inner.forward(self.output)
        low, high = _reached(before, lengths, self._radius, layer)
        centre = (low + high) / 2
        # The centre is rounded: the half width covers both ends of the interval from it.
        width = upward(torch.maximum(high - centre, centre - low), 1)
        mass = torch.maximum(low.abs(), high.abs())
        half, whole = (self._weighted(paths, lengths, w) for w in (width, mass))
        self.output = layer.behind(self.output, before)
        self._layers.append(layer)
        self._units.append(Unit(centre, half, whole))

    def _weighted(self, paths: Paths, lengths: Tensor, squares: Tensor) -> Weights:
        """Weights from the roots of ``squares``, with constants of the weighted inputs."""
        kept = int((squares > 0).sum(1).max()) if len(squares) else 0
        index = squares.argsort(1, descending=True)[:, :kept]
        weight = upward(squares.gather(1, index).sqrt(), 1)
        entries = upward(lengths.gather(1, index) * weight, 1)
        constant = torch.fmin(
            self.norms(_weighed(paths, index, weight)), frobenius(entries[:, None])
        )
        return Weights(index, weight, constant, entries)


def _least(part: Approx, weights: Weights) -> Tensor:
    """Bound each row of a path, by norms and by entries; the smaller of the two."""
    by_norm = upward(part.lengths * weights.constant[:, None], 1)
    sums = (part.matrix.abs() @ weights.entries[..., None]).squeeze(2)
    slack = part.error[:, None] * frobenius(weights.entries[:, None])[:, None]
    terms = part.matrix.shape[2]
    return torch.fmin(by_norm, upward(sums + slack, terms + 4) + terms * UNDERFLOW)


def _weighed(paths: Paths, index: Tensor, weight: Tensor) -> Paths:
    """Select some of the rows of all paths, weighted."""
    picked = Weights(index, weight, weight, weight)
    parts = [picked.of(part.transposed).transposed for part in (paths.linear, *paths.through)]
    masked = None if paths.masked is None else picked.of(paths.masked.transposed).transposed
    return Paths(parts[0], parts[1:], masked)


def _reached(before: Point, lengths: Tensor, radius: Tensor, layer: Layer) -> Interval:
    """Return intervals of the slopes of each unit in the ball."""
    reach = upward(lengths * radius[:, None] + before.entries, 2)
    reach = upward(reach + 4 * UNIT * (before.values.abs() + reach), 4) + UNDERFLOW
    ends = [(before.values + sign * reach).unflatten(1, layer.shape) for sign in (-1, 1)]
    low, high = local_slopes(layer.nonlinearity, *ends)
    return low.flatten(1), high.flatten(1)
