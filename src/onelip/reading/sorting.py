"""Maxima, minima and sorting in graphs: blocks that sort groups of numbers.

``max(a, b)`` and ``min(a, b)`` of two linear maps of one point are the sorted pairs of their
entries, a 1-Lipschitz nonlinearity of both. The maximum and the minimum of the same two values are
parts of one block, so that ``MaxMin`` has the constant 1 whatever operators it was written in.
"""

import functools
import math
from typing import Any

from torch import Tensor

from onelip.activations import GroupSort, MaxMin
from onelip.chains import GroupSorting
from onelip.errors import UnboundedModuleError
from onelip.reading import linear
from onelip.reading.shapes import concatenate
from onelip.reading.values import Value


def maximum(first: Any, second: Any) -> Value:
    """The larger entry of each pair."""
    return _sorted_pairs(*_two_values(first, second))[0]


def minimum(first: Any, second: Any) -> Value:
    """The smaller one."""
    return _sorted_pairs(*_two_values(first, second))[1]


def _two_values(first: Any, second: Any) -> tuple[Value, Value]:
    if not (isinstance(first, Value) and isinstance(second, Value)):
        raise UnboundedModuleError("a maximum or minimum with a constant is not known: clamp is")
    linear.expect(second, str(first.shape), first.shape == second.shape)
    return first, second


@functools.lru_cache(maxsize=2)  # the maximum and the minimum of one pair follow each other
def _sorted_pairs(first: Value, second: Value) -> tuple[Value, Value]:
    """The maxima and the minima, parts of one sorted point."""
    count = math.prod(first.shape)
    rows = [linear.reshaped(part, (count,)) for part in (first, second)]
    both = concatenate(rows, 1)
    paired = linear.moved(both, lambda x: x.unflatten(1, (2, count)).mT.flatten(1))
    pairs = paired.activated(GroupSorting(MaxMin(), 2), "sorted pairs")  # one point for both
    largest = linear.moved(pairs, lambda x: x[:, ::2])
    smallest = linear.moved(pairs, lambda x: x[:, 1::2])
    return linear.reshaped(largest, first.shape), linear.reshaped(smallest, first.shape)


def ascending(value: Value, axis: int, descending: bool = False) -> list[Any]:
    """The sorted numbers along an axis; their places jump, and are not known."""
    axis %= len(value.shape) + 1
    if axis == 0:
        raise UnboundedModuleError("sorts the batch")
    size, order = value.shape[axis - 1], list(range(len(value.shape) + 1))
    order.append(order.pop(axis))
    turned = linear.moved(value, lambda x: x.permute(order).flatten(1))
    groups = turned.activated(GroupSorting(GroupSort(size), size))

    def back(x: Tensor) -> Tensor:
        rest = [value.shape[i - 1] for i in order[1:]]
        image = x.unflatten(1, rest)
        image = image.flip(-1) if descending else image
        y: Tensor = image.movedim(-1, axis)
        return y

    return [linear.moved(groups, back), None]
