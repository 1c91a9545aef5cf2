"""The best lower estimate of a network's Lipschitz constant that a given time allows."""

import functools
import math

import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.chains.linear_map import Shape
from onelip.deadline import Deadline
from onelip.estimates._pair_search import Pair, best_pair, better, pair_search
from onelip.estimates.jacobian import Function, stretch

_POINTS = 512  # Jacobians a round
_FIRST = 8  # and in the first one, where there is a deadline: something soon
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
    Cost: rounds of up to 512 points, until the time is up. The first is short, and stops early; at
    least a few passes through the network are made.

    Args:
        network: a chain, or a function from float64 batches to batches that treats its samples one
            by one; a module must be in eval mode and in double precision.
        input_shape: of one input; a chain knows its own.
        seconds: when to stop. With 0 there is one whole round, and the result depends on the seed
            alone.
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
    deadline = Deadline(seconds if seconds > 0 else math.inf)
    best = Pair(torch.zeros((), dtype=torch.float64), *torch.zeros(2, *shape).double())
    count = _FIRST if seconds > 0 else _POINTS
    while True:
        reach = _reaches(count, shape, generator)
        best = better(best, _round(function, best.x, reach, generator, deadline))
        if seconds <= 0 or deadline.passed:
            break
        count = _POINTS
    return best.quotient


def _reaches(count: int, shape: Shape, generator: torch.Generator) -> Tensor:
    """Distance of each point of a round from its start: every scale is tried."""
    exponents = torch.rand(count, generator=generator, dtype=torch.float64) - 0.5
    return 10 ** (_DECADES * exponents).reshape(-1, *[1] * len(shape))


def _round(
    function: Function,
    best: Tensor,
    reach: Tensor,
    generator: torch.Generator,
    deadline: Deadline,
) -> Pair:
    """Jacobians at random points, gradient ascent from the best of them, Jacobians at its end."""
    random = torch.randn(len(reach), *best.shape, generator=generator, dtype=torch.float64)
    points = reach * random
    points[::2] += best
    norms, found = _confirmed(function, points, reach, deadline)
    if deadline.passed:
        return found
    chosen = norms.argsort(descending=True)[:_STARTS]
    searched = pair_search(function, points[chosen], width=reach[chosen], deadline=deadline)
    found = better(found, searched)
    ends = torch.stack([found.x, found.y, (found.x + found.y) / 2])
    return better(found, _confirmed(function, ends, torch.ones(()), deadline)[1])


def _confirmed(
    function: Function, points: Tensor, reach: Tensor, deadline: Deadline
) -> tuple[Tensor, Pair]:
    """The norms of Jacobians, and the best of the pairs along the directions that they stretch."""
    near = stretch(function, points, deadline=deadline)
    halves = [reach * step / 2 * near.directions for step in _STEPS]
    pairs = [best_pair(function, points + half, points - half) for half in halves]
    return near.norms, functools.reduce(better, pairs)
