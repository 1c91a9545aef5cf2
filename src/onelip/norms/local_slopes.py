"""Slopes of torch's elementwise activations between two inputs.

What is linear in pieces has the slopes of the pieces that an interval touches; a kink on the end of
an interval counts. Tanh and the sigmoid are steepest close to 0. Other activations have the slopes
that they have anywhere (``slopes.py``).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onelip.norms.rounding import UNDERFLOW, exact
from onelip.norms.slopes import slopes

Interval = tuple[Tensor, Tensor]

_TRUSTED = 2.0**-40  # relative error of a computed hyperbolic cosine, with room to spare


class _Pieces(NamedTuple):
    """Kinks in ascending order, and the slopes before, between and behind them."""

    kinks: tuple[float, ...]
    slopes: tuple[float | Tensor, ...]


PIECES: dict[type[nn.Module], Callable[[Any], _Pieces]] = {
    nn.Identity: lambda _: _Pieces((), (1.0,)),
    nn.ReLU: lambda _: _Pieces((0.0,), (0.0, 1.0)),
    nn.LeakyReLU: lambda module: _Pieces((0.0,), (module.negative_slope, 1.0)),
    nn.PReLU: lambda module: _Pieces((0.0,), (exact(module.weight).cpu(), 1.0)),
    nn.ReLU6: lambda _: _Pieces((0.0, 6.0), (0.0, 1.0, 0.0)),
    nn.Hardtanh: lambda module: _Pieces((module.min_val, module.max_val), (0.0, 1.0, 0.0)),
    nn.Softshrink: lambda module: _Pieces((-module.lambd, module.lambd), (1.0, 0.0, 1.0)),
}
"""Activations that torch computes without rounding, but for one product by a slope."""


def local_slopes(activation: nn.Module, low: Tensor, high: Tensor) -> Interval:
    """Intervals that contain every slope of an activation between two inputs of an interval.

    Args:
        activation: one of torch's.
        low: lowest inputs, ``(batch, ...)``, float64; where NaN, nothing is known.
        high: highest inputs.

    Raises:
        UnboundedModuleError: nothing is known about the activation.

    Example:
        >>> local_slopes(nn.ReLU(), torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 2.0]))
        (tensor([0., 1.]), tensor([1., 1.]))
    """
    bottom, top = slopes(activation)
    if type(activation) in PIECES:
        return _touched(PIECES[type(activation)](activation), low, high)
    if isinstance(activation, nn.Tanh | nn.Sigmoid):
        width = 1.0 if isinstance(activation, nn.Tanh) else 0.5
        return _bell(width * low, width * high, top)
    return torch.full_like(low, bottom), torch.full_like(low, top)


def _touched(pieces: _Pieces, low: Tensor, high: Tensor) -> Interval:
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
    unknown = low.isnan() | high.isnan()
    least, most = (torch.where(unknown, end, s) for end, s in ((0.0, least), (top, most)))
    return least.clamp_min(0.0), most.clamp_max(top)
