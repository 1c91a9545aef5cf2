r"""Layers as steps of differences, for bounds that carry one matrix per layer.

The difference :math:`\delta` of an input and the centre of a ball becomes

.. math:: \delta' = F \delta + G w , \qquad z = U \delta , \qquad
          w = \phi(c + z) - \phi(c) ,

with the inputs c of the units at the centre. Units that are linear everywhere are part of F.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.activations import Curve
from onelip.bounds.neighbourhood.dense_layers import Affine, Layer, Point
from onelip.bounds.neighbourhood.slopes import known_activation, per_channel, secants
from onelip.chains import Elementwise
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward


class Matrix(NamedTuple):
    """Matrix with a bound of the Frobenius norm of its error."""

    entries: Tensor
    error: Tensor

    @property
    def size(self) -> Tensor:
        """Bound of the Frobenius norm of the stored entries."""
        return frobenius(self.entries)


@dataclass(frozen=True)
class Stage:
    """A layer as a step of differences.

    Attributes:
        around: F; None for the identity, exactly.
        outer: G, the columns of the units that are not linear.
        inner: U, their rows.
        units: which units these are.
        norm: proved norm of U.
        lengths: proved norms of the rows of U.
        growth: proved constant of the layer, everywhere.
        layer: the layer.
    """

    around: Matrix | None
    outer: Matrix
    inner: Matrix
    units: Tensor
    norm: Tensor
    lengths: Tensor
    growth: Tensor
    layer: Layer

    @property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest slope of each unit, everywhere."""
        low, high = _global_slopes(self.layer)
        return low[self.units], high[self.units]


class Lines(NamedTuple):
    r"""Two lines that bound the change w of each unit's output by the change z of its input.

    ``(w - s_1 z - o_1) (s_2 z + o_2 - w) >= 0``, and where ``side`` is 1 or -1,
    ``side (w - s_j z - o_j) >= 0`` for both.

    Attributes:
        slopes: :math:`s_1` and :math:`s_2`, ``(2, units)``.
        offsets: :math:`o_1` and :math:`o_2`.
        side: 1, -1 or 0.
        off: bound of the errors of the offsets, ``(units,)``.
        reach: bounds of ``|z|``.
        size: bounds of ``|w - s_j z - o_j|``.
    """

    slopes: Tensor
    offsets: Tensor
    side: Tensor
    off: Tensor
    reach: Tensor
    size: Tensor

    def absolute(self) -> "Lines":
        """Return the same with absolute values of all numbers."""
        sizes = self.slopes.abs(), self.offsets.abs(), torch.ones_like(self.side)
        return Lines(*sizes, self.off, self.reach, self.size)


class Placed(NamedTuple):
    """A stage in a ball.

    Attributes:
        stage: the stage.
        lines: bounds of its units.
        distance: bound of the difference in front of it.
    """

    stage: Stage
    lines: Lines
    distance: Tensor


def stages(layers: list[Layer]) -> list[Stage]:
    """Write layers as steps of differences."""
    return [_stage(layer) for layer in layers]


def lines(stage: Stage, before: Point, distance: Tensor) -> Lines:
    """Bound the units of a stage where its input moves by at most ``distance``.

    A unit with one kink, at 0, lies on one of its two lines, wherever its centre is. Of others the
    secants are known.

    Args:
        stage: the stage.
        before: inputs of all units at the centre, a batch of 1.
        distance: how far the stage's input moves, 0-d.
    """
    reach = upward(stage.lengths * distance, 2)
    centre, error = before.values[0, stage.units], before.entries[0, stage.units]
    pieces = _one_kink(stage.layer.nonlinearity, stage.layer.shape)
    if pieces is None:
        whole = torch.zeros_like(before.values).index_copy(1, stage.units, reach[None])
        parts = (t.unflatten(1, stage.layer.shape) for t in (before.values, before.entries, whole))
        found = secants(stage.layer.nonlinearity, *parts)
        slopes = torch.stack([part.flatten()[stage.units] for part in found[:2]])
        nothing = torch.zeros_like(reach)
        size = upward(slopes.abs().sum(0) * reach, 4)
        return Lines(slopes, torch.stack([nothing, nothing]), nothing, nothing, reach, size)
    slopes = pieces[:, stage.units]
    steep = slopes.abs().sum(0)
    value = torch.where(centre > 0, slopes[1] * centre, slopes[0] * centre)
    offsets = slopes * centre - value
    off = upward(steep * (2 * error + 4 * UNIT * centre.abs()) + UNDERFLOW, 8)
    size = upward(steep * (centre.abs() + error + reach), 8)
    return Lines(slopes, offsets, (slopes[1] - slopes[0]).sign(), off, reach, size)


def placed(stages: list[Stage], x: Tensor, radius: Tensor) -> list[Placed]:
    """Bound the units of all stages in the ball around one input.

    Args:
        stages: the network.
        x: a batch of one vector, float64.
        radius: of the ball, 0-d.
    """
    zero = torch.zeros_like(x)
    point, found = Point(x, zero, zero[:, 0]), []
    for stage, distance in zip(stages, reached(stages, radius), strict=False):
        before = stage.layer.inner.forward(point)
        found.append(Placed(stage, lines(stage, before, distance), distance))
        point = stage.layer.behind(point, before)
    return found


def reached(stages: list[Stage], radius: Tensor) -> list[Tensor]:
    """Bounds of the differences in front of each stage, and of that after the last."""
    distances = [radius]
    for stage in stages:
        distances.append(upward(distances[-1] * stage.growth, 1))
    return distances


def _stage(layer: Layer) -> Stage:
    """Split a layer into what is linear in it and the rest."""
    low, high = _global_slopes(layer)
    units, inner = (low != high).nonzero()[:, 0], layer.inner
    outer = _outer(layer, len(low))
    return Stage(
        _around(layer, outer, low, high),
        Matrix(outer.entries[:, units], outer.error),
        Matrix(inner.matrix[units], inner.error),
        units,
        inner.norm,
        inner.lengths[units],
        layer.constant,
        layer,
    )


def _outer(layer: Layer, units: int) -> Matrix:
    """Return the map after the nonlinearity."""
    if layer.outer is None:
        eye = torch.eye(units, dtype=torch.float64)
        return Matrix(eye, eye.new_zeros(()))
    return Matrix(layer.outer.matrix, layer.outer.error)


def _around(layer: Layer, outer: Matrix, low: Tensor, high: Tensor) -> Matrix | None:
    """Return the skip path and the linear units as one map; None for the identity."""
    fixed = (low == high).nonzero()[:, 0]
    skip, inner = layer.skip, layer.inner
    if not len(fixed) and skip is not None and _is_identity(skip):
        return None
    shape = outer.entries.shape[0], inner.matrix.shape[1]
    matrix = skip.matrix if skip is not None else torch.zeros(shape, dtype=torch.float64)
    error = skip.error if skip is not None else matrix.new_zeros(())
    if len(fixed):
        left, right = outer.entries[:, fixed], inner.matrix[fixed] * low[fixed, None]
        slope, sizes = low[fixed].abs().amax(), (frobenius(left), frobenius(right))
        matrix = matrix + left @ right
        new = (gamma(len(fixed) + 4) * sizes[0] + outer.error) * sizes[1]
        new = new + (sizes[0] + outer.error) * inner.error * slope
        lost = matrix.numel() * (len(fixed) + 1) * UNDERFLOW
        error = upward(error + new + 2 * UNIT * frobenius(matrix) + lost, 12)
    return Matrix(matrix, error)


def _is_identity(affine: Affine) -> bool:
    """Whether a map is the identity but for its offset, exactly."""
    matrix = affine.matrix
    square = matrix.shape[0] == matrix.shape[1] and not affine.error
    return square and torch.equal(matrix, torch.eye(len(matrix), dtype=torch.float64))


def _global_slopes(layer: Layer) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest slope of each unit, everywhere."""
    kind = layer.nonlinearity
    low, high = (
        end.detach().double().cpu().broadcast_to(layer.shape).flatten()
        for end in (kind.low, kind.high)
    )
    pieces = _one_kink(kind, layer.shape)
    return (low, high) if pieces is None else (pieces.amin(0), pieces.amax(0))


def _one_kink(activation: Elementwise, shape: tuple[int, ...]) -> Tensor | None:
    """Return the slopes on both sides of 0, ``(2, units)``, of units that are linear there."""
    record = known_activation(activation.module)
    if record is None or record.pieces is None:
        return None
    ends, every = record.pieces(activation.module)
    slopes = [slope for slope in every if not isinstance(slope, Curve)]
    if tuple(ends) != (0.0,) or len(slopes) < len(every):
        return None
    like = torch.zeros(1, *shape, dtype=torch.float64)
    if activation.module(like).any():
        return None
    return torch.stack([per_channel(s, like).expand_as(like).flatten() for s in slopes])
