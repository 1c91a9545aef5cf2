"""Intervals of the slopes of elementwise activations between two inputs.

Each piece of an activation has monotone slopes, so its slopes between two inputs lie between
those at the ends of its part of the interval. A point where two pieces meet counts for both.
"""

import math

import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS, Activation, Curve, Pieces
from onelip.chains import Elementwise
from onelip.norms.rounding import UNDERFLOW

Interval = tuple[Tensor, Tensor]

_TRUSTED = 2.0**-40  # error of a computed slope, with room to spare


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
            flattest = steepest = _per_channel(slope, low)
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


def _per_channel(slope: float | Tensor, like: Tensor) -> Tensor:
    """Shape one slope per channel for broadcasting."""
    numbers = torch.as_tensor(slope, dtype=like.dtype)
    return numbers.reshape(-1, *[1] * max(0, like.ndim - 2)) if numbers.ndim else numbers
