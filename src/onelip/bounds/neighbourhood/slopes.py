"""Slopes of elementwise activations between two inputs.

What is linear in pieces has the slopes of the pieces that an interval touches; a kink on the end of
an interval counts. Tanh and the sigmoid are steepest close to 0. Other activations have the slopes
that they have anywhere.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise
from onelip.layers import Abs
from onelip.norms.rounding import UNDERFLOW, exact

Interval = tuple[Tensor, Tensor]

_TRUSTED = 2.0**-40  # relative error of a computed hyperbolic cosine, with room to spare


class Pieces(NamedTuple):
    """Kinks in ascending order, and the slopes before, between and behind them."""

    kinks: tuple[float, ...]
    slopes: tuple[float | Tensor, ...]


PIECES: dict[type[nn.Module], Callable[[Any], Pieces]] = {
    nn.Identity: lambda _: Pieces((), (1.0,)),
    nn.ReLU: lambda _: Pieces((0.0,), (0.0, 1.0)),
    nn.LeakyReLU: lambda module: Pieces((0.0,), (module.negative_slope, 1.0)),
    nn.PReLU: lambda module: Pieces((0.0,), (exact(module.weight).cpu(), 1.0)),
    nn.ReLU6: lambda _: Pieces((0.0, 6.0), (0.0, 1.0, 0.0)),
    nn.Hardtanh: lambda module: Pieces((module.min_val, module.max_val), (0.0, 1.0, 0.0)),
    nn.Softshrink: lambda module: Pieces((-module.lambd, module.lambd), (1.0, 0.0, 1.0)),
    Abs: lambda _: Pieces((0.0,), (-1.0, 1.0)),
}
"""Activations that torch computes with one rounding at most."""


def local_slopes(activation: Elementwise, low: Tensor, high: Tensor) -> Interval:
    """Intervals that contain every slope of an activation between two inputs of an interval.

    Args:
        activation: with the slopes that it has anywhere.
        low: lowest inputs, ``(batch, ...)``, float64; where NaN, nothing is known.
        high: highest inputs.

    Example:
        >>> ends = torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
        >>> local_slopes(Elementwise.of(nn.ReLU()), *ends)[0]
        tensor([[0., 1.]], dtype=torch.float64)
    """
    module = activation.module
    bottom, top = (end.double().cpu().expand_as(low) for end in (activation.low, activation.high))
    if type(module) in PIECES:
        least, most = _touched(PIECES[type(module)](module), low, high)
    elif isinstance(module, nn.Tanh | nn.Sigmoid):
        width, steepest = (1.0, 1.0) if isinstance(module, nn.Tanh) else (0.5, 0.25)
        least, most = _bell(width * low, width * high, steepest)
    else:
        return bottom, top
    return torch.maximum(least, bottom), torch.minimum(most, top)


def _touched(pieces: Pieces, low: Tensor, high: Tensor) -> Interval:
    """The smallest and the largest slope of the pieces that meet ``[low, high]``."""
    ends = (-math.inf, *pieces.kinks, math.inf)
    least, most = torch.full_like(low, math.inf), torch.full_like(low, -math.inf)
    for start, end, slope in zip(ends[:-1], ends[1:], pieces.slopes, strict=True):
        steep = _per_channel(slope, low)
        missed = (high < start) | (low > end)
        least = torch.where(missed, least, torch.minimum(least, steep))
        most = torch.where(missed, most, torch.maximum(most, steep))
    return least, most


def _per_channel(slope: float | Tensor, like: Tensor) -> Tensor:
    numbers = torch.as_tensor(slope, dtype=like.dtype)
    return numbers.reshape(-1, *[1] * max(0, like.ndim - 2)) if numbers.ndim else numbers


def _bell(low: Tensor, high: Tensor, top: float) -> Interval:
    """Slopes ``top / cosh(x)^2``."""
    inside = ~((low > 0) | (high < 0))
    near = torch.where(inside, 0.0, torch.minimum(low.abs(), high.abs()))
    far = torch.maximum(low.abs(), high.abs())
    least = top / far.cosh().square() * (1 - _TRUSTED) - UNDERFLOW
    most = top / near.cosh().square() * (1 + _TRUSTED) + UNDERFLOW
    least, most = least.nan_to_num(0.0), most.nan_to_num(top)
    return least.clamp_min(0.0), most.clamp_max(top)
