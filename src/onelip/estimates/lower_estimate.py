"""The best lower estimate of a network's Lipschitz constant that a given time allows."""

import functools
import time

import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.chains.linear_map import Shape
from onelip.estimates.jacobian import Function, stretch
from onelip.estimates.pair_search import Pair, best_pair, better, pair_search

_POINTS = 512  # Jacobians a round
_STARTS = 16  # of which this many are improved by gradient ascent
_DECADES = 4  # of the lengths of random steps, around 1
_STEPS = (1e-1, 1e-3, 1e-5)  # distance of two points that confirm a Jacobian, in random steps


def lower_estimate(
    network: Chain | Function,
    input_shape: Shape | None = None,
    *,
    seconds: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Estimate a Lipschitz constant from below: Jacobians at random points, then pair search.

    The number is ``|f(x) - f(y)| / |x - y|`` of two points that were found, less a trillionth of
    the values for rounding: the constant cannot be smaller. It may be larger.

    Shape: inputs are ``(batch, *input_shape)``, float64.
    Cost: rounds of a second or so for small networks, until the time is up; at least one.

    Args:
        network: a chain, or a function from float64 batches to batches that treats its samples one
            by one; a module must be in eval mode and in double precision.
        input_shape: of one input; a chain knows its own.
        seconds: no new round begins after them. With 0 the result depends on the seed alone.
        seed: of the random points.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: a function without an input shape.

    Example:
        >>> lower_estimate(lambda x: 3 * x, (2,), seconds=0)
        tensor(3.0000, dtype=torch.float64)
    """
    function = network.exact().forward if isinstance(network, Chain) else network
    shape = network.inputs if isinstance(network, Chain) else input_shape
    if shape is None:
        raise ValueError("lower_estimate needs the input_shape of a function")
    generator = torch.Generator().manual_seed(seed)
    end = time.monotonic() + seconds
    best = Pair(torch.zeros((), dtype=torch.float64), *torch.zeros(2, *shape).double())
    while True:
        best = better(best, _round(function, best.x, _reaches(shape, generator), generator))
        if time.monotonic() >= end:
            break
    return best.quotient


def _reaches(shape: Shape, generator: torch.Generator) -> Tensor:
    """How far each point of a round lies from where it starts: every scale is tried."""
    exponents = torch.rand(_POINTS, generator=generator, dtype=torch.float64) - 0.5
    return 10 ** (_DECADES * exponents).reshape(-1, *[1] * len(shape))


def _round(function: Function, best: Tensor, reach: Tensor, generator: torch.Generator) -> Pair:
    """Jacobians at random points, gradient ascent from the best of them, Jacobians at its end."""
    random = torch.randn(_POINTS, *best.shape, generator=generator, dtype=torch.float64)
    points = reach * random
    points[::2] += best
    norms, found = _confirmed(function, points, reach)
    chosen = norms.argsort(descending=True)[:_STARTS]
    found = better(found, pair_search(function, points[chosen], width=reach[chosen]))
    ends = torch.stack([found.x, found.y, (found.x + found.y) / 2])
    return better(found, _confirmed(function, ends, torch.ones(()))[1])


def _confirmed(function: Function, points: Tensor, reach: Tensor) -> tuple[Tensor, Pair]:
    """The norms of Jacobians, and the best of the pairs along the directions that they stretch."""
    near = stretch(function, points)
    halves = [reach * step / 2 * near.directions for step in _STEPS]
    pairs = [best_pair(function, points + half, points - half) for half in halves]
    return near.norms, functools.reduce(better, pairs)
