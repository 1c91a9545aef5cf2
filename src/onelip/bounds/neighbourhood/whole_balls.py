"""Bounds of how far margins fall in whole balls, for networks whose layers have tight constants."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.dense_layers import Affine, Layer
from onelip.bounds.neighbourhood.stages import Placed, Stage, placed, reached, stages
from onelip.bounds.semidefinite.falls import Problem, Scales, proposed, scales
from onelip.bounds.semidefinite.value_functions import proved_rise
from onelip.norms.rounding import UNIT, frobenius, upward

_TIGHT = 1.02  # a product of constants that is at most this many times the cap
_ROOM = 1e-6  # relative, that a promise leaves for the rounding of its proof


@dataclass(frozen=True)
class WholeBalls:
    """A network of which one asks how far a margin falls between a centre and its ball.

    Attributes:
        layers: the network.
        last: the map to the logits.
        inside: smallest and largest value of inputs that count; None for all of them.
    """

    layers: list[Layer]
    last: Affine
    inside: tuple[float, float] | None = None

    @cached_property
    def _stages(self) -> list[Stage]:
        return stages(self.layers)

    @cached_property
    def _scales(self) -> Scales:
        return scales(self._stages)

    def suits(self, cap: Tensor) -> bool:
        """Whether constants of pairs of logits are about the products of the layers' constants."""
        growth = math.prod(float(layer.constant) for layer in self.layers)
        rows = torch.cdist(self.last.matrix[None], self.last.matrix[None])[0]
        other = cap > 0
        return bool(self.layers) and bool((growth * rows <= _TIGHT * cap)[other].any())

    def falls(
        self, x: Tensor, radius: Tensor, prediction: Tensor, margins: Tensor, slopes: Tensor
    ) -> Tensor:
        """Bounds of how far margins fall in balls, for the rivals that limit a certificate.

        Bound: infinite for a rival that was not looked at, or of which nothing was proved. A sample
        is left at the first rival whose margin may vanish.

        Args:
            x: inputs, ``(batch, numbers)``, float64.
            radius: of the balls, ``(batch,)``.
            prediction: classes, ``(batch,)``.
            margins: ``(batch, classes)``.
            slopes: known constants of the margins: a rival with ``margin > slope radius`` is none.
        """
        found = torch.full_like(margins, math.inf)
        for sample in range(len(x)):
            own, length = int(prediction[sample]), radius[sample]
            quotients = (margins[sample] / slopes[sample]).nan_to_num(math.inf)
            quotients[own] = math.inf
            rivals = [j for j in quotients.argsort().tolist() if quotients[j] < length]
            if not rivals or not bool((margins[sample][rivals] > 0).all() & (length > 0)):
                continue
            network, room = placed(self._stages, x[sample : sample + 1], length), None
            if self.inside is not None:
                room = upward(
                    torch.stack([x[sample] - self.inside[0], self.inside[1] - x[sample]]), 1
                )
            for rival in rivals:
                target = float(margins[sample, rival])
                fall = self._fall((network, room), own, rival, length, target)
                found[sample, rival] = fall
                if not fall < target:
                    break
        return found

    def _fall(
        self,
        ball: tuple[list[Placed], Tensor | None],
        own: int,
        rival: int,
        radius: Tensor,
        target: float,
    ) -> Tensor:
        """Bound how far one margin falls; infinite where less than ``target`` is not promised."""
        network, room = ball
        row = self.last.matrix[rival] - self.last.matrix[own]
        off = 2 * self.last.error + 2 * UNIT * frobenius(row[None])
        lost = upward(off * reached(self._stages, radius)[-1], 4)
        problem = Problem.of(network, row, float(radius), target, known=self._scales, room=room)
        for promised, multipliers in proposed(problem, target):
            if promised < target * (1 - _ROOM) - float(lost):
                proved = proved_rise(network, multipliers, row, radius, problem.weight, room=room)
                if proved + lost < target:
                    return upward(proved + lost, 1)
        return torch.full((), math.inf, dtype=torch.float64)
