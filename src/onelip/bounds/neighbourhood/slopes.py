r"""Intervals of the slopes of elementwise activations around the input that a unit has.

Two notions, for a unit whose input is c at the centre and moves by r at most:

* ``local_slopes``: quotients of *any two* inputs of ``[c - r, c + r]``. Each piece of an activation
  has monotone slopes, so they lie between those at the ends of its part of the interval. A point
  where two pieces meet counts for both.
* ``secants``: quotients :math:`(\phi(z) - \phi(c)) / (z - c)` of *c and another* input. They are
  enough where everything is compared with the centre, as in a certificate, and not for two inputs
  of the ball. A secant is the mean of the slopes between c and z, each piece weighted by its share
  of the way. Only :math:`1 - d / |z - c|` of the way lies beyond a kink at distance d, which is at
  most :math:`s = \max(0, 1 - d / r)`, so with the slope :math:`\beta` at c and jumps
  :math:`\Delta_j` of the slope at the kinks on one side,

  .. math:: \beta + \sum_j \min(0, \Delta_j) s_j \le \frac{\phi(z) - \phi(c)}{z - c}
            \le \beta + \sum_j \max(0, \Delta_j) s_j .

  With one kink on that side both ends are attained. For a ReLU that is ``[c / r, 1]`` if
  ``0 < c < r``, ``[0, 1 - |c| / r]`` if ``-r < c < 0``, and one number else; for the absolute value
  in ``MaxMin``, ``[2 |c| / r - 1, 1]`` times the sign of c.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS, Activation, Curve, Pieces
from onelip.chains import Elementwise
from onelip.norms.rounding import UNDERFLOW, UNIT, downward, upward

Interval = tuple[Tensor, Tensor]

_TRUSTED = 2.0**-40  # error of a computed slope, with room to spare


class Slopes(NamedTuple):
    """Interval of the slopes of each unit, and on which side of its tangent a unit stays.

    Attributes:
        low: smallest slopes.
        high: largest slopes.
        side: 1 where a unit stays above its tangent at the centre, ``phi(z) - phi(c) >=
            tangent * (z - c)``, -1 where it stays below, 0 where neither is known.
        tangent: the slope at the centre, where ``side`` is not 0.
    """

    low: Tensor
    high: Tensor
    side: Tensor
    tangent: Tensor


class Fold(nn.Module):
    """Fold: the first ``count`` numbers as they are, then the absolute values of as many others."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @property
    def slopes_below(self) -> Tensor:
        """Slope of each entry where its input is negative."""
        ones = torch.ones(self.count, dtype=torch.float64)
        return torch.cat([ones, -ones])

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``[x_1, |x_2|]`` for the two halves of ``x``."""
        return torch.cat([x[:, : self.count], x[:, self.count :].abs()], 1)


_FOLD = Activation(
    slopes=lambda _: (-1.0, 1.0),
    pieces=lambda module: Pieces((0.0,), (module.slopes_below, 1.0)),
    roundings=0,
)


def known_activation(module: nn.Module) -> Activation | None:
    """Return the record of an activation, None if there is none."""
    return _FOLD if type(module) is Fold else ACTIVATIONS.get(type(module))


def local_slopes(activation: Elementwise, low: Tensor, high: Tensor) -> Interval:
    """Intervals that contain every slope of an activation between two inputs of an interval.

    Args:
        activation: the activation, with its global slopes.
        low: lowest inputs, ``(batch, ...)``, float64; where NaN, nothing is known.
        high: highest inputs.

    Example:
        >>> ends = torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
        >>> local_slopes(Elementwise.of(nn.ReLU()), *ends)[0]
        tensor([[0., 1.]], dtype=torch.float64)
    """
    module = activation.module
    bottom, top = (end.double().cpu().expand_as(low) for end in (activation.low, activation.high))
    record = known_activation(module)
    if record is None or record.pieces is None:
        return bottom, top
    least, most = _touched(module, record.pieces(module), low, high)
    known = ~(least.isnan() | most.isnan())
    least, most = torch.maximum(least, bottom), torch.minimum(most, top)
    return torch.where(known, least, bottom), torch.where(known, most, top)


def pair_slopes(activation: Elementwise, centre: Tensor, error: Tensor, reach: Tensor) -> Slopes:
    """Slopes of any two inputs of a ball.

    Args:
        activation: the activation, with its global slopes.
        centre: inputs of the units at the centre, as computed, ``(batch, ...)``, float64.
        error: bounds of their errors.
        reach: how far the exact inputs can move.
    """
    low, high = local_slopes(activation, *_ends(centre, error, reach))
    return Slopes(low, high, torch.zeros_like(low), torch.zeros_like(low))


def secants(activation: Elementwise, centre: Tensor, error: Tensor, reach: Tensor) -> Slopes:
    """Slopes between the centre and any input of a ball, with the arguments of ``pair_slopes``.

    Those of any two inputs where an activation is curved, or where a kink is so close that rounding
    hides on which side of it the centre lies.

    Example:
        >>> centre, nothing = torch.tensor([[0.5, -0.5]]).double(), torch.zeros(1, 2).double()
        >>> secants(Elementwise.of(nn.ReLU()), centre, nothing, nothing + 2).high
        tensor([[1.0000, 0.7500]], dtype=torch.float64)
    """
    all_pairs = pair_slopes(activation, centre, error, reach)
    record = known_activation(activation.module)
    if record is None or record.pieces is None:
        return all_pairs
    ends, numbers = record.pieces(activation.module)
    slopes = [per_channel(s, centre) for s in numbers if not isinstance(s, Curve)]
    if len(slopes) < len(numbers):
        return all_pairs
    slopes = [slope.expand_as(centre) for slope in slopes]
    return _shared_out(ends, slopes, (centre, error, reach), all_pairs)


def _shared_out(
    ends: tuple[float, ...],
    slopes: list[Tensor],
    at: tuple[Tensor, Tensor, Tensor],
    all_pairs: Slopes,
) -> Slopes:
    """Weigh the slopes of linear pieces by the shares that a way from the centre has in them."""
    centre, error, reach = at
    own, sure = slopes[0], centre.isfinite() & error.isfinite()
    for end, slope in zip(ends, slopes[1:], strict=True):
        own = torch.where(centre > end, slope, own)
    low, high = own, own
    convex, concave = sure, sure
    for sign in (-1, 1):  # kinks on the left, then those on the right
        down, up = torch.zeros_like(centre), torch.zeros_like(centre)
        for end, before, after in zip(ends, slopes[:-1], slopes[1:], strict=True):
            distance = downward((centre - end).abs(), 2) - upward(error, 2) - UNDERFLOW
            distance = downward(distance.clamp_min(0), 2)
            sure = sure & (distance > 0)
            share = 1 - downward(distance / reach, 4).nan_to_num(0.0, 1.0, 0.0)
            share = torch.where(share > 0, upward(share, 2) + 2 * UNIT, 0.0).clamp_max(1)
            beyond = sign * (end - centre) > 0
            part = torch.where(beyond, sign * (after - before), 0.0) * share
            down, up = down + part.clamp_max(0), up + part.clamp_min(0)
            convex, concave = convex & (after >= before), concave & (after <= before)
        low, high = torch.minimum(low, own + down), torch.maximum(high, own + up)
    steps = 4 * (len(slopes) + 1)
    lost = upward(2 * steps * UNIT * torch.stack(slopes).abs().sum(0), steps)
    lost = torch.where(low == high, 0.0, lost)  # one slope is exact
    low, high = torch.maximum(low - lost, all_pairs.low), torch.minimum(high + lost, all_pairs.high)
    side = (sure & convex).to(centre) - (sure & concave & ~convex).to(centre)
    low, high = torch.where(sure, low, all_pairs.low), torch.where(sure, high, all_pairs.high)
    return Slopes(low, high, side, own)


def _ends(centre: Tensor, error: Tensor, reach: Tensor) -> Interval:
    """Return the ends of the intervals of inputs, rounded outwards."""
    away = upward(reach + error, 2)
    away = upward(away + 4 * UNIT * (centre.abs() + away), 4) + UNDERFLOW
    return centre - away, centre + away


def _touched(module: nn.Module, pieces: Pieces, low: Tensor, high: Tensor) -> Interval:
    """Return the smallest and the largest slope of the pieces that meet ``[low, high]``."""
    ends = (-math.inf, *pieces.ends, math.inf)
    least, most = torch.full_like(low, math.inf), torch.full_like(low, -math.inf)
    for start, end, slope in zip(ends[:-1], ends[1:], pieces.slopes, strict=True):
        if isinstance(slope, Curve):
            flattest, steepest = _between(
                module, slope, low.clamp(start, end), high.clamp(start, end)
            )
        else:
            flattest = steepest = per_channel(slope, low)
        missed = (high < start) | (low > end)
        least = torch.where(missed, least, torch.minimum(least, flattest))
        most = torch.where(missed, most, torch.maximum(most, steepest))
    return least, most


def _between(module: nn.Module, curve: Curve, low: Tensor, high: Tensor) -> Interval:
    """Bound monotone slopes between two inputs, with their float64 error."""
    first, last = curve.slope(module, low), curve.slope(module, high)
    off = [
        _TRUSTED * (slope.abs() if curve.relative else 1.0) + UNDERFLOW for slope in (first, last)
    ]
    return (
        torch.minimum(first - off[0], last - off[1]),
        torch.maximum(first + off[0], last + off[1]),
    )


def per_channel(slope: float | Tensor, like: Tensor) -> Tensor:
    """Shape one slope per channel for broadcasting."""
    numbers = torch.as_tensor(slope, dtype=like.dtype)
    return numbers.reshape(-1, *[1] * max(0, like.ndim - 2)) if numbers.ndim else numbers
