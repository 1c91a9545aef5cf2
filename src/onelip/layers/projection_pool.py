r"""Projection pooling: distances to learnable curves (Singla, Feizi, NeurIPS 2022, section 6).

The distance to any set is 1-Lipschitz, so it may replace the maximum of two channels. Where a curve
cuts the plane in two, so is the distance with a sign that tells the sides apart: the segment
between two points on different sides meets the curve.
"""

import math
from functools import reduce
from typing import Unpack

import torch
from torch import Tensor, nn

from onelip.forward_error import Local, Run, repeated
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact, upward

Plane = tuple[Tensor, Tensor]


class ProjectionPool2d(LipschitzModule):
    r"""Signed distance of pairs of channels to two rays from 0, at angles theta and -theta.

    Channels i and i + channels / 2 are a point of the plane; its distance is positive on the side
    that holds the angle pi. With e the direction of the upper ray, s the distance to its line and
    t the position along it, both of the point mirrored to the upper half plane, it is s for t >= 0,
    and the distance to 0 for t < 0, positive for theta < pi / 2. The paper's equation (9) is the
    same up to pi / 2 and another function above, where its third case is never reached.

    The rays depend on the cosine of theta and the size of its sine only, so theta may be any
    number; it starts uniform on (0, pi).

    Bound: 1 for exact cosines; with those that were computed, the output is the exact signed
    distance times ``|e|``, about ``1 + 1e-7`` in float32.
    Shape: ``(batch, channels, ...)`` to ``(batch, channels / 2, ...)``.
    Cost: about a dozen elementwise operations.

    Args:
        channels: channels of the input, an even number.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an odd number of channels; in ``forward``, another number of channels.

    Example:
        >>> pool = ProjectionPool2d(2)
        >>> _ = nn.init.constant_(pool.theta, math.pi / 4)
        >>> pool(torch.tensor([[-3.0, 4.0], [2.0, 0.0]])).detach()
        tensor([[ 4.9497],
                [-1.4142]])

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022.
    """

    def __init__(self, channels: int, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        self.channels = _even(channels)
        self.theta = nn.Parameter(torch.empty(channels // 2, **factory).uniform_(0, math.pi))

    def ray(self) -> Tensor:
        """Return the directions of the upper rays, ``(2, channels / 2)``."""
        return torch.stack([self.theta.cos(), self.theta.sin().abs()])

    def forward(self, x: Tensor) -> Tensor:
        """Return the signed distance to the rays."""
        first, second = _plane(x, self.channels)
        # the two rays mirror each other: the distance depends on the upper half plane only
        upper = second.abs()
        cos, sin = self.ray().view(2, -1, *(1,) * (x.ndim - 2))
        across = cos * upper - sin * first
        along = cos * first + sin * upper
        beyond = along < 0
        safe = torch.hypot(across.where(beyond, 1), along.where(beyond, 0))  # never at 0
        return torch.where(beyond, cos.sign() * safe, across)

    def lipschitz_bound(self) -> Tensor:
        """Largest length of a direction, rounded up: about 1."""
        square = upward(exact(self.ray()).square().sum(0), 3)
        return upward(square.sqrt(), 1).max().cpu()

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(self.channels)

    def forward_error(self, run: Run) -> Local:
        """Rounding of two sums of two products, and of a length.

        Where the sign of ``along`` is computed wrongly, its terms have opposite signs, so
        ``across`` has the sign of the cosine, and both branches agree up to ``|along|``, which is
        within rounding.
        """
        return Local(0.0, run.rounding(24, run.lipschitz * run.x.reach))


class CurvePool2d(LipschitzModule):
    """Distance of pairs of channels to a learnable open polygon: its corners and the segments.

    Channels i and i + channels / 2 are a point of the plane. One corner makes it the distance to a
    point, which at 0 is the norm of the pair. The distance has no sign, for an open curve has no
    sides; see ``ProjectionPool2d`` for a curve that has. At the curve its gradient is taken as 0.

    Bound: 1, attained: whatever the corners, it is the distance to a set.
    Shape: ``(batch, channels, ...)`` to ``(batch, channels / 2, ...)``.
    Cost: about a dozen elementwise operations per segment.

    Args:
        channels: channels of the input, an even number.
        corners: number of corners, which start as standard normal points.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an odd number of channels, no corner; in ``forward``, another number of
            channels.

    Example:
        >>> pool = CurvePool2d(2, 1)
        >>> _ = nn.init.zeros_(pool.corners)
        >>> pool(torch.tensor([[-3.0, 4.0]])).detach()
        tensor([[5.]])

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022.
    """

    same_in_float64 = True

    def __init__(self, channels: int, corners: int = 3, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if corners < 1:
            raise ValueError(f"a curve has at least one corner, got {corners}")
        self.channels = _even(channels)
        self.corners = nn.Parameter(torch.randn(corners, 2, channels // 2, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """Return the distance to the polygon."""
        point = _plane(x, self.channels)
        corners = self.corners.view(*self.corners.shape, *(1,) * (x.ndim - 2)).unbind()
        segments = zip(corners, corners[1:] or corners, strict=False)
        square = reduce(torch.minimum, (squared_distance(point, *ends) for ends in segments))
        away = square > 0  # the root has no derivative at 0: a gradient of 0 is taken there
        distance: Tensor = square.where(away, 1).sqrt() * away
        return distance

    def lipschitz_bound(self) -> Tensor:
        """Return 1; corners that are infinite or NaN are refused."""
        exact(self.corners)
        return torch.ones((), dtype=torch.float64)

    def extra_repr(self) -> str:
        """Channels and corners."""
        return f"{self.channels}, corners={len(self.corners)}"

    def forward_error(self, run: Run) -> Local:
        """Rounding of the distance to a segment from s to e, by its nearest point.

        The share is off by at most ``8 u |p - s| / |e - s|``, which moves the point on the segment
        by ``8 u |p - s|``; a segment that is too short for that is no longer than
        ``2 sqrt(lost / u)``.
        """
        lengths = upward(exact(self.corners).cpu().square().sum(1), 3).sqrt()
        magnitude = run.x.reach + 3 * repeated(upward(lengths.amax(0), 2), run)
        run.arithmetic.check(4 * magnitude * magnitude)
        lost = 4 * math.sqrt(run.arithmetic.lost / run.arithmetic.unit * run.count)
        return Local(repeated(upward(lengths.amin(0), 2), run), run.rounding(24, magnitude) + lost)


def squared_distance(point: Plane, start: Tensor, end: Tensor) -> Tensor:
    """Squared distance to the segment between two points ``(2, ...)``, which may be equal."""
    (x, y), along = (p - s for p, s in zip(point, start, strict=True)), end - start
    square = along.square().sum(0)
    share = (x * along[0] + y * along[1]) / square.where(square > 0, 1)
    # nearest point of the line, then of the segment
    share = share.clamp(0, 1)
    missed: Tensor = (x - share * along[0]).square() + (y - share * along[1]).square()
    return missed


def _even(channels: int) -> int:
    """Return the number of channels, if it is even and positive."""
    if channels < 2 or channels % 2:
        raise ValueError(f"channels are pooled in pairs: an even number is asked, got {channels}")
    return channels


def _plane(x: Tensor, channels: int) -> Plane:
    """Split channels into pairs i and i + channels / 2: points of a plane."""
    if x.shape[1] != channels:
        raise ValueError(f"the pooling has curves for {channels} channels, got {x.shape[1]}")
    first, second = x.chunk(2, 1)
    return first, second
