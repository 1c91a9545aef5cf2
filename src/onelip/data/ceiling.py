r"""Upper bounds of every classifier's certified accuracy, from test inputs that are close.

Two inputs of different labels whose distance is at most :math:`2 \epsilon` cannot both be right
with certified radii above :math:`\epsilon`: a point between them would have both labels. Such pairs
are the edges of a graph, and of each edge of a matching one end is lost. Nothing rests on the
matching being the largest one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.data.labelled_set import LabelledSet
from onelip.errors import UsageError
from onelip.norms.rounding import gamma

_AT_ONCE = 2**23  # distances that are held at a time
_LEVELS = 255  # of a pixel


class Pair(NamedTuple):
    """Two inputs of a data set, by their numbers, and their Euclidean distance."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True)
class Ceiling:
    """Bound of certified accuracy at a radius.

    Attributes:
        eps: the radius.
        pairs: number of pairs of different labels that are no farther apart than twice the radius.
        lost: edges of a matching of them: of each, one end is wrong or has no larger radius.
        samples: number of inputs.
    """

    eps: Fraction
    pairs: int
    lost: int
    samples: int

    @property
    def certified(self) -> Fraction:
        """No classifier has a larger share of inputs that are right with a radius above ``eps``."""
        return 1 - Fraction(self.lost, self.samples)


@dataclass(frozen=True)
class Ceilings:
    """Bounds of certified accuracy on a data set.

    Attributes:
        rows: one for each radius, in order.
        closest: the two inputs of different labels that are closest; None if there are none.
        repeated: number of inputs that an earlier one of the same label equals.
        contradicted: number of pairs of equal inputs with different labels.
    """

    rows: tuple[Ceiling, ...]
    closest: Pair | None
    repeated: int
    contradicted: int


def ceilings(data: LabelledSet, eps: Sequence[Fraction | float]) -> Ceilings:
    """Bound the certified accuracy of every classifier on some inputs.

    Distances of images of bytes are exact, in integers. Those of floats are rounded upwards, so
    that a pair counts only if it is surely close.

    Cost: all distances, in float64: 10,000 images of 32 x 32 take about a minute of one core.

    Args:
        data: inputs, images of bytes in pixels of [0, 1], or rows of floats.
        eps: radii, as fractions (``Fraction(36, 255)``) or as floats, which are taken exactly.

    Raises:
        UsageError: a radius is negative or not finite, there are none, or no inputs.

    Example:
        >>> rows = torch.tensor([[0.0], [1.0], [5.0]])
        >>> data = LabelledSet(rows, torch.tensor([0, 1, 1]), 2)
        >>> [str(row.certified) for row in ceilings(data, [0.4, 0.6]).rows]
        ['1', '2/3']
    """
    if not eps or not all(0 <= radius < math.inf for radius in eps):
        raise UsageError(f"eps must be finite radii that are not negative, got {list(eps)}")
    if not len(data):
        raise UsageError("there are no inputs")
    radii = [Fraction(radius) for radius in eps]
    squares = _Squares(data)
    limits = [squares.limit(2 * radius) for radius in radii]
    first, second, found, repeated, closest = _close(squares, data.labels, max(limits))
    rows = []
    for radius, limit in zip(radii, limits, strict=True):
        edges = torch.stack([first, second], 1)[found <= limit]
        rows.append(Ceiling(radius, len(edges), len(matching(edges)), len(data)))
    return Ceilings(tuple(rows), closest, repeated, int((found == 0).sum()))


def matching(edges: Tensor) -> set[tuple[int, int]]:
    """A largest set of edges without common ends, of a graph with edges ``(count, 2)``.

    By networkx, which torch brings.
    """
    import networkx

    graph = networkx.Graph(edges.tolist())
    found: set[tuple[int, int]] = set()
    for nodes in networkx.connected_components(graph):
        found |= networkx.max_weight_matching(graph.subgraph(nodes), maxcardinality=True)
    return found


class _Squares:
    """Squared distances of inputs, no smaller than they are; exact for bytes.

    For bytes all sums of products are whole numbers below 2^53, in which float64 rounds nothing.
    """

    def __init__(self, data: LabelledSet) -> None:
        self.numbers = data.inputs.flatten(1).double()
        self.exact = data.inputs.dtype == torch.uint8
        self.unit = _LEVELS if self.exact else 1
        self.sizes = self.numbers.square().sum(1)
        if self.exact and self.numbers.shape[1] * _LEVELS**2 >= 2**51:
            raise UsageError("distances of images as large as these are not exact")

    def limit(self, distance: Fraction) -> float:
        """The largest float64 number that is no larger than the square of a distance."""
        square = (distance * self.unit) ** 2
        if square > Fraction(2) ** 1000:
            return math.inf
        near = float(square)
        return near if Fraction(near) <= square else math.nextafter(near, -math.inf)

    def from_rows(self, first: int, last: int) -> Tensor:
        """Squared distances from some inputs to all, and less than that where they are rounded."""
        products = self.numbers[first:last] @ self.numbers.T
        both = self.sizes[first:last, None] + self.sizes
        squares = both - 2 * products
        if self.exact:
            return squares
        slack = 4 * gamma(self.numbers.shape[1] + 4)
        return (squares - slack * both).clamp_min(0)

    def of_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """Squared distances of pairs, rounded upwards."""
        parts = []
        room = max(1, _AT_ONCE // self.numbers.shape[1])
        for one, other in zip(first.split(room), second.split(room), strict=True):
            parts.append((self.numbers[one] - self.numbers[other]).square().sum(1))
        squares = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
        if self.exact:
            return squares
        # Squares below the smallest normal number may be lost, of numbers that are not equal.
        lost = torch.where((self.numbers[first] != self.numbers[second]).any(1), 2.0**-960, 0.0)
        return squares * (1 + gamma(self.numbers.shape[1] + 8)) + lost


def _close(
    squares: _Squares, labels: Tensor, limit: float
) -> tuple[Tensor, Tensor, Tensor, int, Pair | None]:
    """Close pairs of different labels with their squared distances, and what else is seen."""
    count = len(labels)
    at_once = max(1, _AT_ONCE // count)
    found, repeated = [], torch.zeros(count, dtype=torch.bool)
    nearest, least = (0, 0), math.inf
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        below = squares.from_rows(start, stop)
        later = torch.arange(count) > torch.arange(start, stop)[:, None]
        other = labels[start:stop, None] != labels
        same = ((below <= 0) & later & ~other).nonzero() + torch.tensor([start, 0])
        equal = (squares.numbers[same[:, 0]] == squares.numbers[same[:, 1]]).all(1)
        repeated[same[equal, 1]] = True
        apart = torch.where(later & other, below, math.inf).nan_to_num(
            nan=math.inf, posinf=math.inf
        )
        found.append((apart <= min(limit, torch.finfo().max)).nonzero() + torch.tensor([start, 0]))
        smallest = float(apart.min())
        if smallest < least:
            row, column = divmod(int(apart.argmin()), count)
            least, nearest = smallest, (start + row, column)
    pairs = torch.cat(found)
    first, second = pairs[:, 0], pairs[:, 1]
    exact = squares.of_pairs(first, second)
    kept = exact <= limit
    closest = None
    if least < math.inf:
        ends = [torch.tensor([end]) for end in nearest]
        closest = Pair(*nearest, math.sqrt(float(squares.of_pairs(*ends))) / squares.unit)
    return first[kept], second[kept], exact[kept], int(repeated.sum()), closest
