"""Search over all rivals of a batch, the nearest first.

The radius proved for a pair only grows with work: first from a bound of the gradient, then by a
search with a cheap bound of the curvature, then by one with the exact bound. The radius of a sample
is the smallest over its rivals, so that work goes to the rival with the least proved so far, and
ends when that one has nothing more to gain: most rivals are never touched.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.bounds.head_curvature import Curvature
from onelip.certificates.head_curvature.parabola import reach
from onelip.certificates.head_curvature.search import Pairs, search
from onelip.certificates.head_curvature.tangents import Differences
from onelip.certificates.head_curvature.witnesses import witnesses
from onelip.norms.rounding import UNIT, downward, upward

_NUMBERS_AT_ONCE = 2**22
_RIVALS_AT_ONCE = 8
_UNTOUCHED, _LOOSE, _DONE = 0, 1, 2


@dataclass(frozen=True)
class Proofs:
    """Proved constants of a head, and the effort of the search."""

    differences: Differences
    curvature: Curvature
    slopes: Tensor
    steps: int
    tolerance: float


class Rivals:
    """All rivals of some samples, with the proved radius and the stage of each."""

    def __init__(self, bounds: Proofs, start: Tensor, prediction: Tensor) -> None:
        self.bounds, self.start, self.prediction = bounds, start, prediction
        self.layer = bounds.differences.layer(start)
        margin, error = self._margins()
        self.margin = margin - upward(error + 4 * UNIT * (margin.abs() + error), 4)
        # Lost for sure: the rival is at least as large even with the errors in favour.
        self.lost = margin + upward(error, 4) <= 0
        positive = self.margin > 0
        floor = downward(self.margin / bounds.slopes[prediction], 4)
        floor = torch.where(positive, floor, 0.0).nan_to_num(nan=0.0, posinf=math.inf)
        self.lower = torch.maximum(floor, self._without_gradients())
        self.stage = torch.where(positive, _UNTOUCHED, _DONE)
        own = prediction[:, None]
        self.lower.scatter_(1, own, math.inf)
        self.margin.scatter_(1, own, math.inf)
        self.stage.scatter_(1, own, _DONE)
        self.boundary = start.clone()
        self.owner = torch.full_like(prediction, -1)
        self.sharp = torch.zeros_like(prediction, dtype=torch.bool)

    def radii(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return radii, rivals, distances and witnesses, when no radius can grow any more."""
        while self._touch() or self._tighten():
            pass
        radius, rival = self.lower.min(1)
        rival = torch.where(radius == 0, self.margin.argmin(1), rival)
        return radius, rival, *self._witnesses(rival)

    def _margins(self) -> tuple[Tensor, Tensor]:
        """Return the margins to all logits, and bounds of their errors."""
        scores, error = self.bounds.differences.logits(self.start, self.layer[0])
        own = self.prediction[:, None]
        return scores.gather(1, own) - scores, error.gather(1, own) + error

    def _without_gradients(self) -> Tensor:
        """Radii for all rivals from the tangents at the samples, with bounds of their gradients."""
        steep = self.bounds.differences.steepness(self.start, self.layer[1], self.prediction)
        pairs = torch.meshgrid(
            self.prediction, torch.arange(steep.shape[1], device=steep.device), indexing="ij"
        )
        bend = self.bounds.curvature.rough(*(classes.flatten() for classes in pairs))
        return reach(self.margin, steep, bend.to(steep).reshape(steep.shape))

    def _touch(self) -> bool:
        """Search, with cheap bounds, for rivals below the least radius reached by others."""
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
        """Search for pairs in chunks, and store radii, stages and meeting points."""
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
            # A search that was cut short may still gain: the rival may come back later.
            self.stage[some, other] = torch.where(
                found.cut,
                _UNTOUCHED if stage == _LOOSE else _DONE,
                after,
            )
            least = self.lower.masked_fill(self.stage == _UNTOUCHED, math.inf).amin(1)
            leads = (self.lower[some, other] <= least[some]) & ~found.cut
            self.boundary[some[leads]] = found.boundary[leads]
            self.owner[some[leads]] = other[leads]
            self.sharp[some[leads]] = found.sharp[leads]

    def _witnesses(self, rival: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances of points where the rivals have caught up, and the points."""
        owned = self.owner == rival
        guess = torch.where(owned[:, None], self.boundary, self.start)
        # Without a sharp meeting point from the proof, search for one without regard to curvature.
        vague = ~(self.sharp & owned)
        if vague.any():
            guess[vague] = self._meeting(guess[vague], vague, rival)
        lost = self.lost.gather(1, rival[:, None])[:, 0]
        guess = torch.where(lost[:, None], self.start, guess)
        return witnesses(
            self.bounds.differences,
            Pairs(self.start, self.prediction, rival, torch.zeros_like(guess[:, 0])),
            guess,
            self.bounds.tolerance,
        )

    def _meeting(self, begin: Tensor, rows: Tensor, rival: Tensor) -> Tensor:
        """Search for the points where the logits meet, without a proof."""
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
