"""Search for the nearest point where two logits meet: proposals, none of them trusted.

The minimiser of ``|y - x0|^2 / 2 + eta f(y)`` is a fixed point of ``y = x0 - eta g(y)``, with eta
such that the tangent at y vanishes there, and at most 1 / N: beyond, the dual problem has no more
to give. Steps towards that map's image have the length of Barzilai and Borwein (1988).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.certificates.head_curvature.parabola import proved_radius
from onelip.certificates.head_curvature.tangents import Differences, Tangent

_SHORTEST, _LONGEST = 0.05, 2.0


@dataclass(frozen=True)
class Pairs:
    """Samples with one rival each.

    Attributes:
        start: ``(pairs, features)`` float64, the centres x0.
        first: ``(pairs,)`` the predicted classes.
        second: ``(pairs,)`` the rivals.
        bend: ``(pairs,)`` float64, bounds of the downward curvature of the logit difference.
    """

    start: Tensor
    first: Tensor
    second: Tensor
    bend: Tensor

    def __getitem__(self, rows: Tensor) -> "Pairs":
        return Pairs(self.start[rows], self.first[rows], self.second[rows], self.bend[rows])


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        radius: ``(pairs,)`` float64, proved.
        boundary: ``(pairs, features)``, a guess of the nearest point where the logits meet, up to
            the error of their difference.
        sharp: ``(pairs,)``, whether that point seems to be as close as the radius says.
        cut: ``(pairs,)``, whether the search ended because the radius was large enough.
    """

    radius: Tensor
    boundary: Tensor
    sharp: Tensor
    cut: Tensor


def search(
    differences: Differences,
    pairs: Pairs,
    *,
    enough: Tensor,
    steps: int,
    tolerance: float,
    begin: Tensor | None = None,
    layer: tuple[Tensor, Tensor] | None = None,
) -> Found:
    """Radii of pairs; each point on the way proves one, and the largest counts.

    Cost: one tangent per step of the pairs that are still at work.

    Args:
        differences: logit differences of the head.
        pairs: the samples and their rivals.
        enough: ``(pairs,)``, radii at which to stop.
        steps: largest number of steps; 0 takes the tangent at the sample alone.
        tolerance: relative gap between radius and distance at which to stop.
        begin: first points, instead of the samples.
        layer: ``differences.layer`` of the samples, if it is known.
    """
    points = pairs.start if begin is None else begin
    radius, boundary = torch.zeros_like(pairs.bend), points.clone()
    sharp, cut = torch.zeros_like(radius, dtype=torch.bool), torch.zeros_like(radius).bool()
    rows = torch.arange(len(radius), device=radius.device)
    before: tuple[Tensor, Tensor] | None = None
    for step in range(steps + 1):
        now = pairs[rows]
        given = layer if step == 0 and begin is None else None
        tangent = differences.tangents(points, now.first, now.second, given)
        proved = proved_radius(now.start, points, tangent, now.bend)
        radius[rows] = proved = torch.maximum(radius[rows], proved)
        tangent = tangent._replace(value=tangent.value - tangent.error)
        meeting = points - (tangent.value / _square(tangent.gradient))[:, None] * tangent.gradient
        boundary[rows] = meeting
        sharp[rows] = close = _is_sharp(now, points, meeting, proved, tolerance)
        cut[rows] = stop = proved >= enough[rows]
        move = _image(now, points, tangent) - points
        far = move.norm(dim=1) > tolerance / 8 * (points + move - now.start).norm(dim=1)
        length = torch.ones_like(proved) if before is None else _length(points, move, *before)
        go = far & ~close & ~stop  # false for NaN
        rows, before = rows[go], (points[go], move[go])
        points = (points + length[:, None] * move)[go]
        if not len(rows):
            break
    return Found(radius, boundary, sharp, cut & ~sharp)


def _image(pairs: Pairs, points: Tensor, tangent: Tangent) -> Tensor:
    """Compute ``x0 - eta g``, with eta from the tangent at the points."""
    ahead = tangent.value + (tangent.gradient * (pairs.start - points)).sum(1)
    eta = torch.minimum(ahead / _square(tangent.gradient), 1 / pairs.bend).clamp_min(0)
    return pairs.start - eta[:, None] * tangent.gradient


def _length(points: Tensor, move: Tensor, old: Tensor, old_move: Tensor) -> Tensor:
    """Barzilai-Borwein step size: the right one for the last step if the map were linear."""
    turn = move - old_move
    length: Tensor = -((points - old) * turn).sum(1) / _square(turn)
    return length.nan_to_num(nan=1.0).clamp(_SHORTEST, _LONGEST)


def _is_sharp(
    pairs: Pairs, points: Tensor, meeting: Tensor, radius: Tensor, tolerance: float
) -> Tensor:
    """Mask of pairs whose logits nearly meet, at most the radius away up to half the gap."""
    distance: Tensor = (meeting - pairs.start).norm(dim=1)
    near: Tensor = (meeting - points).norm(dim=1) <= math.sqrt(tolerance) / 4 * distance
    reached: Tensor = radius >= (1 - tolerance / 2) * distance
    return reached.logical_and(near)


def _square(vectors: Tensor) -> Tensor:
    """Squared norms of vectors."""
    squares: Tensor = vectors.square().sum(1)
    return squares
