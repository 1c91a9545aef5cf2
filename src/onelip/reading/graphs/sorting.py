"""Maxima, minima and sorting in graphs: blocks that sort groups of numbers.

``max(a, b)`` and ``min(a, b)`` of two linear maps of one point are the sorted pairs of their
entries, a 1-Lipschitz nonlinearity of both. The maximum and the minimum of the same two values are
parts of one block, so that ``MaxMin`` has the constant 1 whatever operators it was written in.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import GroupSorting, Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.layers import GroupSort, MaxMin
from onelip.reading.graphs.clamps import clamped
from onelip.reading.graphs.shapes import concatenate, part_of


def maximum(first: Any, second: Any) -> Value:
    """The larger entry of each pair, or of each number and a constant."""
    if not (isinstance(first, Value) and isinstance(second, Value)):
        value, end = (first, second) if isinstance(first, Value) else (second, first)
        return clamped(value, low=end)
    return _sorted_pairs(*_two_values(first, second))[0]


def minimum(first: Any, second: Any) -> Value:
    """The smaller one."""
    if not (isinstance(first, Value) and isinstance(second, Value)):
        value, end = (first, second) if isinstance(first, Value) else (second, first)
        return clamped(value, high=end)
    return _sorted_pairs(*_two_values(first, second))[1]


def _two_values(first: Value, second: Value) -> tuple[Value, Value]:
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


class Lengths(nn.Module):
    """Euclidean lengths along some axes, counted with the batch."""

    def __init__(self, axes: tuple[int, ...], keep: bool) -> None:
        super().__init__()
        self.axes, self.keep = axes, keep

    def forward(self, x: Tensor) -> Tensor:
        """The lengths."""
        lengths: Tensor = torch.linalg.vector_norm(x, dim=self.axes, keepdim=self.keep)
        return lengths


def lengths(value: Value, order: float, axes: Any, keep: bool, *_: Any) -> Value:
    """Lengths of vectors that share no number; they differ by no more than the vectors do."""
    count = len(value.shape) + 1
    along = range(count) if axes is None else [int(a) % count for a in axes]
    if order != 2 or 0 in along or not along:
        raise UnboundedModuleError("only Euclidean lengths within each input are known")
    module = Lengths(tuple(along), bool(keep))
    shape = tuple(module(torch.empty(1, *value.shape, device="meta")).shape[1:])
    return value.activated(Opaque(module, 1.0, shape))


def largest_first(
    value: Value, count: int, axis: int, largest: bool = True, ordered: bool = True
) -> list[Any]:
    """The largest numbers along an axis, or the smallest, in their order; not their places."""
    if not ordered and count > 1:
        raise UnboundedModuleError("the order of topk with sorted=False is not known: it jumps")
    numbers = ascending(value, axis, descending=largest)[0]
    return [part_of(numbers, axis, slice(0, count)), None]


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
