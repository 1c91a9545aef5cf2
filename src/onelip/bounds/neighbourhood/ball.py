r"""Intervals of the slopes of a network's units in a ball, and the constants that follow.

With centres C and half widths R of the slopes of a layer, the recursion of LipLT (Fazlyab et al.,
2023, equation 19) bounds linear images of a layer's output, for each sample separately:

.. math:: \mathrm{Lip}(T x_k) \le \|T C_{k-1} W_{k-1} \cdots C_0 W_0\| + \sum_{j < k}
          \|T C_{k-1} W_{k-1} \cdots W_{j+1} R_j^{1/2}\| \, \mathrm{Lip}(R_j^{1/2} W_j x_j) .

A unit that cannot switch has :math:`R = 0`. Row by row, the bound limits how far each unit of
the next layer can move in the ball, hence which units can switch. The product of norms of masked
matrices (Huang et al., 2021) is taken where it is smaller.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.neighbourhood.dense_layers import Layer, Point
from onelip.bounds.neighbourhood.slopes import Slopes
from onelip.bounds.semidefinite.uncertain import Uncertain
from onelip.chains import Elementwise
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, upward

_SLACK = 1e-6  # of a tangent, relative, beyond which it is not used


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


Rule = Callable[[Elementwise, Tensor, Tensor, Tensor], Slopes]
"""The slopes that count: ``pair_slopes`` or ``secants``, with their arguments."""


class Unit(NamedTuple):
    """Bounds of the slopes of a layer's units in the balls of a batch."""

    slopes: Slopes
    centre: Tensor  # of the slopes, (batch, units)
    half: Weights  # roots of half their widths
    mass: Weights  # roots of their largest absolute values
    inputs: "Paths"  # of the units of ``half``, with its weights


class Paths(NamedTuple):
    """Linear image of the last layer's output, split by the layer where a path ends."""

    linear: Approx  # from the input, through the centres of all slopes
    through: list[Approx]  # from the units of each layer, times the roots of their half widths
    masked: Approx | None  # from the units of the last layer, times the roots of their masses


class Balls:
    """Balls of a radius around a batch of inputs, propagated through a network.

    Constants are those of two inputs of the ball, or of its centre and another input, as the rule
    of slopes says.

    Attributes:
        radius: of the balls.
        output: output of the layers at the centres.
        units: bounds of the slopes, layer by layer.
    """

    def __init__(self, layers: list[Layer], x: Tensor, radius: Tensor, rule: Rule) -> None:
        self._layers: list[Layer] = []
        self.units: list[Unit] = []
        self.radius = radius
        self._rule = rule
        self._inputs = x.shape[1]
        zero = torch.zeros_like(x)
        self.output = Point(x, zero, zero[:, 0])
        for layer in layers:
            self._enter(layer)

    def paths(self, rows: Approx) -> Paths:
        """Trace a linear image of the output back to the input."""
        through: list[Approx] = []
        masked = None
        for layer, units in zip(reversed(self._layers), reversed(self.units), strict=True):
            entering = rows if layer.outer is None else rows.times(layer.outer)
            if not through and layer.skip is None:
                masked = units.mass.of(entering)
            through.append(units.half.of(entering))
            before = entering.scaled(units.centre).times(layer.inner)
            rows = before if layer.skip is None else before.plus(rows.times(layer.skip))
        linear = Approx(
            rows.matrix.expand(len(self.radius), -1, -1), rows.error.expand(len(self.radius))
        )
        return Paths(linear, through[::-1], masked)

    def lengths(self, paths: Paths) -> Tensor:
        """Lipschitz constants, over the ball, of each row of the image: ``(batch, rows)``."""
        total = paths.linear.lengths
        for part, units in zip(paths.through, self.units, strict=True):
            total = upward(total + _least(part, units.half), 1)
        if paths.masked is not None:
            total = torch.fmin(total, _least(paths.masked, self.units[-1].mass))
        return total

    def norms(self, paths: Paths) -> Tensor:
        """Lipschitz constants, over the ball, of the image: ``(batch,)``."""
        total = paths.linear.norms
        for part, units in zip(paths.through, self.units, strict=True):
            total = upward(total + upward(part.norms * units.half.constant, 1), 1)
        if paths.masked is not None:
            masked = paths.masked.norms * self.units[-1].mass.constant
            total = torch.fmin(total, upward(masked, 1))
        return total

    def uncertain(self) -> Uncertain:
        """Return the units whose slope is not known, everything else multiplied out."""
        batch, units = len(self.radius), self.units
        layers = tuple(unit.half.weight.shape[1] for unit in units)
        parts = [self.image(unit.inputs, sum(layers)) for unit in units]
        columns = self._inputs + sum(layers)
        matrix = torch.cat([torch.zeros(batch, 0, columns).double(), *(p.matrix for p in parts)], 1)
        error = torch.stack([torch.zeros(batch).double(), *(p.error for p in parts)]).sum(0)
        numbers = torch.arange(len(layers)).repeat_interleave(
            torch.tensor(layers, dtype=torch.long)
        )
        tangents = [_tangents(unit) for unit in units] or [(torch.zeros(batch, 0).double(),) * 4]
        entries, *others = (torch.cat(columns, 1) for columns in zip(*tangents, strict=True))
        rows = Approx(matrix, upward(error, len(parts) + 2))
        return Uncertain(rows, entries, numbers.expand(batch, -1), *others)

    def image(self, paths: Paths, count: int | None = None) -> Approx:
        """Join the paths from the input and from the units of each layer, filled up with zeros."""
        parts = [paths.linear, *paths.through]
        matrix = torch.cat([part.matrix for part in parts], 2)
        if count is not None:
            missing = self._inputs + count - matrix.shape[2]
            matrix = torch.nn.functional.pad(matrix, (0, missing))
        error = torch.stack([part.error.expand(len(matrix)) for part in parts]).sum(0)
        return Approx(matrix, upward(error, len(parts) + 2))

    def _enter(self, layer: Layer) -> None:
        """Extend the balls by one layer."""
        rows = Approx(layer.inner.matrix[None], layer.inner.error[None])
        paths = self.paths(rows)
        lengths = self.lengths(paths)
        before = layer.inner.forward(self.output)
        slopes = self._slopes(layer, before, lengths)
        centre = (slopes.low + slopes.high) / 2
        # The centre is rounded: the half width covers both ends of the interval from it.
        width = upward(torch.maximum(slopes.high - centre, centre - slopes.low), 1)
        mass = torch.maximum(slopes.low.abs(), slopes.high.abs())
        half, inputs = self._weighted(paths, lengths, width)
        whole, _ = self._weighted(paths, lengths, mass)
        self.output = layer.behind(self.output, before)
        self._layers.append(layer)
        self.units.append(Unit(slopes, centre, half, whole, inputs))

    def _slopes(self, layer: Layer, before: Point, lengths: Tensor) -> Slopes:
        """Slopes of the units of a layer that move at most ``lengths`` times the radius."""
        reach = upward(lengths * self.radius[:, None], 2)
        parts = (t.unflatten(1, layer.shape) for t in (before.values, before.entries, reach))
        found = self._rule(layer.nonlinearity, *parts)
        return Slopes(*(part.flatten(1) for part in found))

    def _weighted(self, paths: Paths, lengths: Tensor, squares: Tensor) -> tuple[Weights, Paths]:
        """Weights from the roots of ``squares``, and the inputs of the units with these weights."""
        kept = int((squares > 0).sum(1).max()) if len(squares) else 0
        index = squares.argsort(1, descending=True)[:, :kept]
        weight = upward(squares.gather(1, index).sqrt(), 1)
        entries = upward(lengths.gather(1, index) * weight, 1)
        rows = _weighed(paths, index, weight)
        constant = torch.fmin(self.norms(rows), frobenius(entries[:, None]))
        return Weights(index, weight, constant, entries), rows


def _tangents(unit: Unit) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the entries, sides, signs and slacks of the uncertain units (``Uncertain``)."""
    half, slopes = unit.half, unit.slopes
    side, tangent, centre = (
        t.gather(1, half.index) for t in (slopes.side, slopes.tangent, unit.centre)
    )
    away, square = centre - tangent, half.weight.square()
    # The tangent is at one end of the interval: |centre - tangent| is the half width.
    slack = (1 - away.abs() / square).abs() + 16 * UNIT
    usable = (slack < _SLACK) & (half.entries > 0)
    return (
        half.entries,
        torch.where(usable, side, 0.0),
        torch.sign(away),
        torch.where(usable, slack, 0.0),
    )


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
