"""Operations of graphs that move numbers: shapes, padding, parts; and means over images.

Axes are counted as torch counts them, the batch first.
"""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.reading.graphs.branches import added
from onelip.reading.graphs.operations import add


def reshape(value: Value, shape: Sequence[int]) -> Value:
    """Shape with the batch as the first axis."""
    numbers = torch.empty(1, *value.shape, device="meta")
    target = tuple(linear.tried(lambda x: x.reshape([int(n) for n in shape]), numbers).shape)
    return linear.reshaped(value, target[1:])


def permute(value: Value, axes: Sequence[int]) -> Value:
    """The batch stays where it is."""
    if axes[0] % len(axes):
        raise UsageError("moves the batch from the first axis")
    return linear.moved(value, lambda x: x.permute(*axes))


def squeeze(value: Value, axes: Sequence[int]) -> Value:
    """Without axes of size 1."""
    if any(axis % (len(value.shape) + 1) == 0 for axis in axes):
        raise UsageError("squeezes the batch")
    return linear.moved(value, lambda x: x.squeeze(tuple(axes)))


def unsqueeze(value: Value, axis: int) -> Value:
    """Value with one more axis of size 1."""
    if axis % (len(value.shape) + 2) == 0:
        raise UsageError("puts an axis in front of the batch")
    return linear.moved(value, lambda x: x.unsqueeze(axis))


def pad(value: Value, pads: Sequence[int], mode: str = "constant", number: float = 0.0) -> Value:
    """Pad as ``F.pad`` does; ``pads`` begins with the last axis."""
    if any(pads[2 * len(value.shape) :]):
        raise UsageError("pads the batch")
    pads = list(pads)[: 2 * len(value.shape)]
    if mode == "circular":
        left, right, top, bottom, *more = [*pads, 0, 0][: max(4, len(pads))]
        if any(more):
            raise UsageError("pads channels circularly")
        shape = value.shape
        image = linear.reshaped(value, (shape[0], 1, shape[1])) if len(shape) == 2 else value
        around = linear.wrapped(image, ((top, bottom), (left, right)))
        return linear.reshaped(around, (shape[0], around.shape[2])) if len(shape) == 2 else around
    if mode != "constant":
        return linear.moved(value, lambda x: F.pad(x, pads, mode))
    padded = linear.moved(value, lambda x: F.pad(x, pads))
    if not number:
        return padded
    border = F.pad(torch.zeros(value.shape, dtype=torch.float64), pads, value=number)
    return linear.shifted(padded, border)


def concatenate(parts: Sequence[Value | Tensor], axis: int) -> Value:
    """Values and constants side by side: each padded with zeros, and their sum."""
    first = next(part for part in parts if isinstance(part, Value))
    axis %= len(first.shape) + 1
    if axis == 0:
        raise UsageError("puts inputs side by side along the batch")
    sizes = [p.shape[axis - 1] if isinstance(p, Value) else p.shape[axis] for p in parts]
    around = [
        [0, 0] * (len(first.shape) - axis) + [sum(sizes[:i]), sum(sizes[i + 1 :])]
        for i in range(len(parts))
    ]
    padded = list(zip(parts, around, strict=True))
    values = [pad(part, pads) for part, pads in padded if isinstance(part, Value)]
    constants = [F.pad(part, pads) for part, pads in padded if isinstance(part, Tensor)]
    return functools.reduce(add, constants, functools.reduce(added, values))


def stacked(parts: Sequence[Value | Tensor], axis: int) -> Value:
    """Along a new axis."""
    count = next(len(part.shape) for part in parts if isinstance(part, Value)) + 2
    axis %= count
    return concatenate([_with_axis(part, axis) for part in parts], axis)


def _with_axis(part: Value | Tensor, axis: int) -> Value | Tensor:
    return unsqueeze(part, axis) if isinstance(part, Value) else part.unsqueeze(axis)


def parts(value: Value, split: Callable[[Tensor], Sequence[Tensor]], axis: int) -> list[Value]:
    """The parts that torch splits a tensor of this shape into, along an axis."""
    sizes = [part.shape[axis] for part in split(torch.empty(1, *value.shape, device="meta"))]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        part_of(value, axis, slice(start, start + size))
        for start, size in zip(starts, sizes, strict=True)
    ]


def unflattened(value: Value, axis: int, sizes: Sequence[int]) -> Sequence[int]:
    """The shape, batch first, with one axis taken apart."""
    whole = torch.empty(1, *value.shape, device="meta")
    return tuple(whole.unflatten(axis, [int(size) for size in sizes]).shape)


def flipped(value: Value, axes: Sequence[int]) -> Value:
    """Backwards along some axes."""
    if any(axis % (len(value.shape) + 1) == 0 for axis in axes):
        raise UsageError("turns the batch round")
    return linear.moved(value, lambda x: x.flip(list(axes)))


def part_of(value: Value, axis: int, where: slice | int | Tensor) -> Value:
    """Numbers at some places of an axis."""
    axis %= len(value.shape) + 1
    if axis == 0:
        raise UsageError("takes inputs from the batch")
    return linear.moved(value, lambda x: x[(slice(None),) * axis + (where,)])
