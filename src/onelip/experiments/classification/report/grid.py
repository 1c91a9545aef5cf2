"""Radii that the slider of a report stops at."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch

from onelip.experiments.classification.report.subjects import Subject, eps_text

_STOPS = 400
_MOST = 1e300


@dataclass(frozen=True)
class Grid:
    """Radii in ascending order, from 0 on.

    Attributes:
        values: multiples of a short decimal fraction, and the radii of the recipes.
        texts: the same as text, not rounded.
        named: places of the radii of the recipes.
        unit: of radii.
    """

    values: list[float]
    texts: list[str]
    named: list[int]
    unit: str

    @property
    def start(self) -> int:
        """Place of the slider at first: the middle one of the recipes' radii."""
        return self.named[len(self.named) // 2]

    def marks(self) -> list[tuple[int, str]]:
        """Places and texts of the recipes' radii."""
        return [(place, self.texts[place]) for place in self.named]


def grid_of(of: Sequence[Subject]) -> Grid:
    """Return the radii from 0 to beyond nearly all certified ones and those of the recipes."""
    named = {eps: eps_text(eps, subject.info) for subject in of for eps in subject.eps}
    top = min(_MOST, max(*named, *(_reach(subject) for subject in of)) * 1.02)
    step = _step(top / _STOPS)
    decimals = itertools.takewhile(lambda v: v <= top, (step * k for k in itertools.count()))
    written = {float(value): f"{value.normalize():f}" for value in decimals} | named
    values = sorted(written)
    return Grid(
        values=values,
        texts=[written[value] for value in values],
        named=[values.index(eps) for eps in sorted(named)],
        unit=" or ".join(dict.fromkeys(subject.info.unit for subject in of)),
    )


def _reach(subject: Subject) -> float:
    """Largest radius, unless a few samples are far beyond all others."""
    ranked = torch.cat([seed.radius[seed.right].double() for seed in subject.radii]).sort().values
    if not len(ranked):
        return 0.0
    return min(float(ranked[-1]), 2 * float(ranked[int(0.99 * (len(ranked) - 1))]))


def _step(least: float) -> Decimal:
    """Return the smallest of 1, 2, 5, 10 ... times a power of ten that is as large as asked."""
    power = Decimal(1).scaleb(Decimal(least).adjusted())
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= Decimal(least))
