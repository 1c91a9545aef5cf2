"""Learning rate schedules: factors of the peak rate at a share of the run."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

_Points = Sequence[tuple[float, float]]

_TRIANGULAR = ((0.0, 0.0), (2 / 5, 1.0), (4 / 5, 1 / 20), (1.0, 0.0))
_FINAL = 0.96235062639**200  # what BCOP's decay of 0.96235 an epoch leaves after its 200 epochs


def piecewise_triangular(progress: float) -> float:
    """Rise, fall to a twentieth, then to 0 (Meunier et al., 2022, section 5.1).

    Example:
        >>> [piecewise_triangular(p) for p in (0.0, 0.2, 0.4, 0.8, 1.0)]
        [0.0, 0.5, 1.0, 0.05, 0.0]
    """
    return _between(_TRIANGULAR, progress)


def triangular(progress: float) -> float:
    """Rise up to the middle, then fall (Trockman and Kolter, 2021).

    Example:
        >>> [triangular(p) for p in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 0.5, 1.0, 0.0]
    """
    return _between(((0.0, 0.0), (0.5, 1.0), (1.0, 0.0)), progress)


def one_cycle(progress: float) -> float:
    """Rise over the first 30 % and fall, along cosines (Smith, Topin, 2018).

    Example:
        >>> [round(one_cycle(p), 3) for p in (0.0, 0.15, 0.3, 0.65, 1.0)]
        [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    if progress < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return (1 + math.cos(math.pi * min(1, (progress - 0.3) / 0.7))) / 2


def exponential(progress: float) -> float:
    """Fall by a factor of about 2000 over the run (Li et al., 2019).

    Example:
        >>> round(exponential(1.0), 6)
        0.000464
    """
    return math.exp(progress * math.log(_FINAL))


def late_exponential(progress: float, *, start: float) -> float:
    """Keep the peak rate up to ``start``, then fall to a thousandth (Leino et al., 2021).

    Example:
        >>> [round(late_exponential(p, start=0.5), 6) for p in (0.0, 0.5, 0.75, 1.0)]
        [1.0, 1.0, 0.031623, 0.001]
    """
    return math.pow(1e-3, max(0.0, (progress - start) / (1 - start)))


def steps(progress: float) -> float:
    """Drop to a tenth at the middle, a hundredth at three quarters (Singla, Feizi, 2021).

    Example:
        >>> [steps(p) for p in (0.0, 0.5, 0.75)]
        [1.0, 0.1, 0.01]
    """
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def _between(points: _Points, progress: float) -> float:
    for (left, low), (right, high) in itertools.pairwise(points):
        if progress <= right:
            share = (progress - left) / (right - left)
            return low * (1 - share) + high * share
    return points[-1][1]


SCHEDULES: dict[str, Callable[[float], float]] = {
    "piecewise-triangular": piecewise_triangular,
    "triangular": triangular,
    "one-cycle": one_cycle,
    "exponential": exponential,
    "exponential-from-1/16": partial(late_exponential, start=1 / 16),
    "exponential-from-1/3": partial(late_exponential, start=1 / 3),
    "exponential-from-1/2": partial(late_exponential, start=1 / 2),
    "steps": steps,
}
"""Every schedule by name, for recipes and the command line."""
