"""Radii of a head with one hidden layer, over all rivals, the nearest first.

What is proved of a pair only grows with work: from the margin over a Lipschitz constant, to the
tangent at the sample, to a search with a cheap bound of the curvature, to one with the exact bound.
The radius of a sample is the smallest over its rivals, so that work goes to the rival with the least
proved so far, and ends when that one has nothing more to gain: most rivals are never touched.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from onelip.bounds.curvature import Curvature, TwoLayers
from onelip.certificates.nearest import Pairs, search
from onelip.certificates.tangents import Differences
from onelip.norms.rounding import UNIT, downward, frobenius, upward

_NUMBERS_AT_ONCE = 2**22
_RIVALS_AT_ONCE = 8
_UNTOUCHED, _LOOSE, _DONE = 0, 1, 2


@dataclass(frozen=True)
class HeadRadii:
    """What was proved of a batch of features.

    Attributes:
        radius: ``(batch,)`` float64: in the open ball of this radius the head keeps its prediction,
            in exact arithmetic, from its weights as stored and the features as exact numbers.
        rival: ``(batch,)`` int64, the class that limits it.
        distance: ``(batch,)`` float64, not below how far the witness is away; infinite where none
            was found.
        witness: ``(batch, features)`` float64, a point where the rival is proved to be as large as
            the prediction; NaN where none was found.
    """

    radius: Tensor
    rival: Tensor
    distance: Tensor
    witness: Tensor


@torch.no_grad()
def head_radii(
    head: TwoLayers,
    features: Tensor,
    prediction: Tensor,
    curvature: Curvature,
    slopes: Tensor,
    *,
    steps: int = 30,
    tolerance: float = 1e-4,
    slack: float = 0.0,
) -> HeadRadii:
    """Radii around features in which the prediction of a head cannot change.

    Bound: each radius is proved for every rival, whatever the search did (``tangents.py``); it is
    at most ``distance``, and equal up to the tolerance where the head bends little.
    Shape: ``features`` is ``(batch, features)``.
    Cost: two products with the hidden layer per pair and step; a few pairs per sample, two or three
    steps per pair. Curvature is proved exactly only for pairs of classes that limit a sample whose
    radius the cheap bound leaves open.

    Args:
        head: the two layers.
        features: of any float type.
        prediction: ``(batch,)`` what the network said; the radius is 0 where a rival's logit is
            not proved to be smaller.
        curvature: of the head.
        slopes: ``(classes, classes)``, proved Lipschitz constants of the differences of logits.
        steps: of each search, at most; 0 gives the closed form of Singla and Feizi.
        tolerance: relative gap to the distance at which a search ends.
        slack: how much the logits must stay apart, for rounding behind this function.

    Example:
        >>> from torch import nn
        >>> head = TwoLayers.of(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))
        >>> features = torch.randn(5, 4)
        >>> prediction = head(features.double()).argmax(1)
        >>> slopes = torch.full((3, 3), 100.0, dtype=torch.float64)
        >>> radii = head_radii(head, features, prediction, Curvature(head), slopes)
        >>> bool((radii.radius <= radii.distance).all())
        True
    """
    device = head.inner.device
    features, prediction = features.to(device, torch.float64), prediction.to(device)
    finite = torch.isfinite(features).all(1)
    features = torch.where(finite[:, None], features, 0.0)
    bounds = _Bounds(Differences(head, slack), curvature, slopes.to(head.inner), steps, tolerance)
    at_once = max(1, _NUMBERS_AT_ONCE // max(head.inner.shape[0], head.classes))
    parts = [
        _Rivals(bounds, *part).radii()
        for part in zip(features.split(at_once), prediction.split(at_once), strict=True)
    ]
    columns = ([getattr(part, field.name) for part in parts] for field in fields(HeadRadii))
    radius, rival, distance, witness = (torch.cat(column) for column in columns)
    return HeadRadii(
        radius=torch.where(finite, radius, 0.0),
        rival=rival,
        distance=torch.where(finite, distance, math.inf),
        witness=torch.where(finite[:, None], witness, math.nan),
    )


@dataclass(frozen=True)
class _Bounds:
    differences: Differences
    curvature: Curvature
    slopes: Tensor
    steps: int
    tolerance: float


class _Rivals:
    """All rivals of some samples: what is proved of each, and how far the work on it went."""

    def __init__(self, bounds: _Bounds, start: Tensor, prediction: Tensor) -> None:
        self.bounds, self.start, self.prediction = bounds, start, prediction
        self.layer = bounds.differences.layer(start)
        margin, error = self._margins()
        self.margin = margin - upward(error + 4 * UNIT * (margin.abs() + error), 4)
        self.lost = margin + upward(error, 4) <= 0
        positive = self.margin > 0
        floor = downward(self.margin / bounds.slopes[prediction], 4)
        self.lower = torch.where(positive, floor, 0.0).nan_to_num(nan=0.0, posinf=math.inf)
        self.stage = torch.where(positive, _UNTOUCHED, _DONE)
        own = prediction[:, None]
        self.lower.scatter_(1, own, math.inf)
        self.margin.scatter_(1, own, math.inf)
        self.stage.scatter_(1, own, _DONE)
        self.boundary = start.clone()
        self.owner = torch.full_like(prediction, -1)
        self.sharp = torch.zeros_like(prediction, dtype=torch.bool)

    def radii(self) -> HeadRadii:
        """Work until no radius can grow."""
        while self._touch() or self._tighten():
            pass
        radius, rival = self.lower.min(1)
        rival = torch.where(radius == 0, self.margin.argmin(1), rival)
        return HeadRadii(radius, rival, *self._witnesses(rival))

    def _margins(self) -> tuple[Tensor, Tensor]:
        scores, error = self.bounds.differences.logits(self.start, self.layer[0])
        own = self.prediction[:, None]
        return scores.gather(1, own) - scores, error.gather(1, own) + error

    def _touch(self) -> bool:
        """Search, with cheap bounds, for rivals below the least that was reached by others."""
        reached = self.lower.masked_fill(self.stage == _UNTOUCHED, math.inf).amin(1)
        needed = (self.stage == _UNTOUCHED) & (self.lower < reached[:, None])
        if not needed.any():
            return False
        count = min(_RIVALS_AT_ONCE if torch.isfinite(reached).any() else 1, needed.shape[1])
        least = self.lower.masked_fill(~needed, math.inf).topk(count, largest=False).indices
        sample, place = needed.gather(1, least).nonzero(as_tuple=True)
        rival = least[sample, place]
        bend = self.bounds.curvature.rough(self.prediction[sample], rival)
        self._work(sample, rival, bend, reached, _LOOSE)
        return True

    def _tighten(self) -> bool:
        """Search again, with exact bounds, for rivals that limit their samples and may gain."""
        sample = torch.arange(len(self.start), device=self.start.device)
        rival = self.lower.argmin(1)
        loose = self.stage[sample, rival] == _LOOSE
        if not loose.any():
            return False
        sample, rival = sample[loose], rival[loose]
        done = self.lower.masked_fill(self.stage != _DONE, math.inf).amin(1)
        bend = self.bounds.curvature(self.prediction[sample], rival)
        self._work(sample, rival, bend, done, _DONE)
        return True

    def _work(
        self, sample: Tensor, rival: Tensor, bend: Tensor, enough: Tensor, stage: int
    ) -> None:
        bend = bend.to(self.start)
        at_once = max(1, _NUMBERS_AT_ONCE // max(self.layer[0].shape[1], self.start.shape[1]))
        for some, other, bound in zip(
            sample.split(at_once), rival.split(at_once), bend.split(at_once), strict=True
        ):
            found = search(
                self.bounds.differences,
                Pairs(self.start[some], self.prediction[some], other, bound),
                enough=enough[some],
                steps=self.bounds.steps,
                tolerance=self.bounds.tolerance,
                layer=(self.layer[0][some], self.layer[1][some]),
            )
            self.lower[some, other] = torch.maximum(self.lower[some, other], found.radius)
            after = torch.where(found.sharp, _DONE, stage)
            self.stage[some, other] = torch.where(
                found.cut, _UNTOUCHED if stage == _LOOSE else _DONE, after
            )
            least = self.lower.masked_fill(self.stage == _UNTOUCHED, math.inf).amin(1)
            leads = (self.lower[some, other] <= least[some]) & ~found.cut
            self.boundary[some[leads]] = found.boundary[leads]
            self.owner[some[leads]] = other[leads]
            self.sharp[some[leads]] = found.sharp[leads]

    def _witnesses(self, rival: Tensor) -> tuple[Tensor, Tensor]:
        """Points where the rivals have caught up, and their distances."""
        owned = (self.owner == rival)[:, None]
        points = torch.where(owned, self.boundary, self.start)
        vague = ~(self.sharp & owned[:, 0])
        if vague.any():
            points[vague] = self._meeting(points[vague], vague, rival)
        witness = torch.full_like(self.start, math.nan)
        lost = self.lost.gather(1, rival[:, None])[:, 0] & (rival != self.prediction)
        witness[lost] = self.start[lost]
        open_ = ~lost & torch.isfinite(points).all(1) & (rival != self.prediction)
        rows = open_.nonzero()[:, 0]
        for beyond in (1 / 8, 1 / 2, 2, 8, 32, 128):
            at = self.start[rows] + (1 + self.bounds.tolerance * beyond) * (
                points[rows] - self.start[rows]
            )
            value, error = self.bounds.differences.values(at, self.prediction[rows], rival[rows])
            proved = value + upward(error, 2) <= 0
            witness[rows[proved]] = at[proved]
            rows = rows[~proved]
        away = (witness - self.start)[:, None]
        distance = upward(frobenius(away), 2)
        distance = torch.where(lost, 0.0, distance).nan_to_num(nan=math.inf)
        return distance, witness

    def _meeting(self, begin: Tensor, rows: Tensor, rival: Tensor) -> Tensor:
        """Where the logits meet, sought without regard to what can be proved."""
        start, bend = self.start[rows], self.start.new_zeros(len(begin))
        pairs = Pairs(start, self.prediction[rows], rival[rows], bend)
        found = search(
            self.bounds.differences,
            pairs,
            enough=torch.full_like(bend, math.inf),
            steps=self.bounds.steps,
            tolerance=self.bounds.tolerance,
            begin=begin,
        )
        return found.boundary
