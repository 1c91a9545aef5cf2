"""Points where a prediction is proved to be lost: upper bounds of any radius."""

import math

import torch
from torch import Tensor

from onelip.certificates.head_curvature.search import Pairs
from onelip.certificates.head_curvature.tangents import Differences
from onelip.norms.rounding import frobenius, upward

_BEYOND = (1 / 2, 2.0, 8.0, 32.0)
"""Steps beyond the meeting point of the logits at which a witness is sought, in tolerances."""


def witnesses(
    differences: Differences, pairs: Pairs, guess: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Find points where the second logit is proved to be as large as the first.

    Args:
        differences: logit differences of the head.
        pairs: the samples and their rivals.
        guess: ``(pairs, features)``, where the logits of each pair nearly meet, or a sample that is
            lost already.
        tolerance: relative; the search beyond the guess proceeds in such steps.

    Returns:
        Distances ``(pairs,)``, rounded upwards, and points ``(pairs, features)``; infinite and NaN
        where nothing was proved.
    """
    witness = torch.full_like(guess, math.nan)
    rows = torch.isfinite(guess).all(1).nonzero()[:, 0]
    rows = rows[(pairs.first != pairs.second)[rows]]
    now = pairs[rows]
    points = now.start + (1 + tolerance / 8) * (guess[rows] - now.start)
    for beyond in (*_BEYOND, None):
        value, error = differences.values(points, now.first, now.second)
        ahead = value + upward(error, 2) <= 0
        witness[rows[ahead]] = points[ahead]
        rows, now, points = rows[~ahead], now[~ahead], points[~ahead]
        if beyond is None or not len(rows):
            break
        points = _farther(differences, now, points, tolerance * beyond)
    distance = upward(frobenius((witness - pairs.start)[:, None]), 2)
    distance = torch.where((witness == pairs.start).all(1), 0.0, distance)
    return distance.nan_to_num(nan=math.inf), witness


def _farther(differences: Differences, pairs: Pairs, points: Tensor, share: float) -> Tensor:
    """Move to where the tangents make the second logit larger for sure, and a little farther."""
    tangent = differences.tangents(points, pairs.first, pairs.second)
    steep = tangent.gradient.norm(dim=1)
    away = (points - pairs.start).norm(dim=1) * share
    step: Tensor = (tangent.value + tangent.error) / steep + away
    return points.sub((step / steep)[:, None] * tangent.gradient)
