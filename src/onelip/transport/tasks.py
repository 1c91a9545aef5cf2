"""Pairs of distributions whose Wasserstein-1 distance is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Random = torch.Generator


@dataclass(frozen=True)
class KnownTask:
    """Two distributions P and Q on vectors, and their distance.

    Args:
        about: what they are.
        features: size of a sample.
        distance: Wasserstein-1.
        draw_p: n samples of P from a generator, ``(n, features)``.
        draw_q: n samples of Q.
        error: standard error of a distance that is a mean over drawn pairs; 0 of an exact one.
    """

    about: str
    features: int
    distance: float
    draw_p: Callable[[int, Random], Tensor]
    draw_q: Callable[[int, Random], Tensor]
    error: float = 0.0

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw samples of P and of Q, ``(n, features)`` each, independent of each other."""
        random = torch.Generator().manual_seed(seed)
        return self.draw_p(n, random), self.draw_q(n, random)


def _sphere(n: int, features: int, random: Random) -> Tensor:
    points = torch.randn(n, features, generator=random)
    return torch.nn.functional.normalize(points)


def _signs(n: int, random: Random) -> Tensor:
    return 2.0 * torch.randint(2, (n, 1), generator=random) - 1


def _tips(n: int, random: Random) -> Tensor:
    """Tips of three cones, at -2, 0 and 2 on the first axis."""
    place = 2.0 * torch.randint(3, (n,), generator=random) - 2
    return torch.stack([place, torch.zeros(n)], 1)


def gaussians(features: int = 16, shift: float = 2.0) -> KnownTask:
    """Standard normal distribution and its translate by ``shift``: the distance is the shift.

    The mean of a translation is a lower bound by the linear critic along it, an upper bound by the
    translation itself.
    """
    step = shift / math.sqrt(features)
    return KnownTask(
        about=f"two normal distributions in {features} dimensions, {shift:g} apart",
        features=features,
        distance=abs(shift),
        draw_p=lambda n, random: torch.randn(n, features, generator=random),
        draw_q=lambda n, random: torch.randn(n, features, generator=random) + step,
    )


def high_dimensional_cone(features: int = 128) -> KnownTask:
    """Point and the unit sphere around it: the best critic is the norm."""
    return KnownTask(
        about=f"a point and the unit sphere around it in {features} dimensions",
        features=features,
        distance=1.0,
        draw_p=lambda n, _: torch.zeros(n, features),
        draw_q=lambda n, random: _sphere(n, features, random),
    )


TASKS: dict[str, KnownTask] = {
    "absolute-value": KnownTask(
        about="0, and -1 or 1: the best critic is the absolute value",
        features=1,
        distance=1.0,
        draw_p=lambda n, _: torch.zeros(n, 1),
        draw_q=_signs,
    ),
    "three-cones": KnownTask(
        about="three points in the plane and the unit circles around them, which touch",
        features=2,
        distance=1.0,
        draw_p=_tips,
        draw_q=lambda n, random: _tips(n, random) + _sphere(n, 2, random),
    ),
    "high-dimensional-cone": high_dimensional_cone(),
    "gaussians": gaussians(),
}
"""The tasks of Anil, Lucas and Grosse (2019) with a known answer, and a translation."""
