"""Parts of one vector that are put side by side: one map that moves numbers.

A graph splits a vector and puts its parts together again as a sum of two maps that each leave zeros
where the other has numbers. Taken as a sum, its norm would be counted twice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from onelip.chains import LinearMap, Reshape, Taking
from onelip.chains.linear_layers import taking
from onelip.chains.value import Value, shared_maps


def side_by_side(first: Value, second: Value) -> Value | None:
    """The sum of two values of one point that fill different places, or None if they meet.

    Args:
        first: a linear map of a point.
        second: one of the same point, of the same shape.
    """
    same = shared_maps(first, second)
    prefix = first.maps[:same]
    shape = prefix[-1].outputs if prefix else first.point.shape
    count = torch.Size(shape).numel()
    one, other = (_places(value.maps[same:], count) for value in (first, second))
    if one is None or other is None or bool(((one >= 0) & (other >= 0)).any()):
        return None
    index = torch.maximum(one, other)
    index = index.to(first.point.like.device)
    return Value(first.point, (*prefix, taking(shape, first.shape, index)))


def _places(maps: Sequence[LinearMap], count: int) -> Tensor | None:
    """Index from which each number is taken, -1 for zeros; None for maps that do more than move."""
    index = torch.arange(count)
    for linear in maps:
        if isinstance(linear, Reshape):
            continue
        if not isinstance(linear, Taking):
            return None
        taken = linear.index.cpu()
        if not len(index):  # a part of no numbers: all is padding
            index = torch.full_like(taken, -1)
            continue
        index = torch.where(taken >= 0, index[taken.clamp_min(0)], -1)
    return index
