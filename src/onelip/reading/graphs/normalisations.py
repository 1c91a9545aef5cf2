r"""Divisions by root mean squares: layer, instance, group and RMS normalisation, unit vectors.

Let :math:`g(y) = y / D(r)` with :math:`r = |y|`, and D made of :math:`r / \sqrt{d}` by adding
numbers that are not negative, by taking the larger one of it and such a number, and by
:math:`\sqrt{D^2 + \epsilon}` and :math:`\sqrt{\max(D^2, m)}`. Each of these keeps
:math:`0 \le r D' \le D`. The Jacobian of g is symmetric with the eigenvalues :math:`1 / D` across y
and :math:`(D - r D') / D^2` along it, which lie between 0 and :math:`1 / D`. As D does not fall,
the Lipschitz constant is :math:`1 / D(0)`, the Jacobian at y = 0: :math:`1 / \sqrt{\epsilon}` for
layer normalisation, :math:`1 / \epsilon` for :math:`y / \max(|y|, \epsilon)` and for
:math:`y / (|y| + \epsilon)`. A
normalisation that subtracts the mean first is g after the projection P onto the vectors of mean 0,
followed by a scale :math:`\gamma`; as g keeps that space, its constant is
:math:`|\mathrm{diag}(\gamma) P| / D(0)`, attained where all entries are equal.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from onelip.chains import GroupMean, Opaque, Shape
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs.bounded_products import REACHES


@dataclass(frozen=True)
class Guard:
    """Numbers, not negative, that keep a root of a mean square away from 0.

    Attributes:
        epsilon: added to the mean square.
        floor: below which the mean square is not.
        shift: added to the root.
        least: below which the root is not.
    """

    epsilon: float = 0.0
    floor: float = 0.0
    shift: float = 0.0
    least: float = 0.0

    def squares(self, means: Tensor) -> Tensor:
        """The mean squares as the root takes them."""
        return (means + self.epsilon).clamp_min(self.floor)

    def root(self, means: Tensor) -> Tensor:
        """The root of mean squares."""
        return (self.squares(means).sqrt() + self.shift).clamp_min(self.least)

    @property
    def constant(self) -> float:
        """A bound of one over the least root; infinite where that is 0."""
        inside = max(Fraction(self.epsilon), Fraction(self.floor))
        outside = max(Fraction(self.shift), Fraction(self.least))
        bounds = [root_above(1 / inside)] if inside else []
        return min([*bounds, *([above(1 / outside)] if outside else [])], default=math.inf)


class RootMeanSquare(nn.Module):
    """Groups of ``size`` neighbours, each divided by the root of its mean square."""

    def __init__(self, size: int, divisor: float, guard: Guard) -> None:
        super().__init__()
        self.size, self.divisor, self.guard = size, divisor, guard

    def forward(self, x: Tensor) -> Tensor:
        """Divide; the last axis holds the groups one after the other."""
        groups = x.unflatten(-1, (-1, self.size))
        means = groups.square().sum(-1, keepdim=True) / self.divisor
        result: Tensor = (groups / self.guard.root(means)).flatten(-2)
        return result


REACHES[RootMeanSquare] = lambda module: math.sqrt(module.divisor) * (1 + 1e-15)


def normalised(
    value: Value,
    axes: Sequence[int],
    guard: Guard | float,
    *,
    divisor: float | None = None,
    centred: bool = False,
) -> Value:
    """Each group of numbers divided by its root mean square, perhaps without its mean.

    Args:
        value: to be normalised.
        axes: along which a group lies, counted with the batch.
        guard: what keeps the root away from 0; a number is added to the mean square.
        divisor: of the sum of squares; None for the size of a group.
        centred: whether the mean is subtracted first.

    Raises:
        UnboundedModuleError: with nothing above 0 it jumps where all numbers are equal.
    """
    if not isinstance(guard, Guard):
        if not 0 < guard < math.inf:
            raise UnboundedModuleError(
                f"a normalisation with epsilon {guard} jumps where its numbers are all equal"
            )
        guard = Guard(guard)
    if guard.constant == math.inf:
        raise UnboundedModuleError(
            "a normalisation without an epsilon jumps where its numbers are all equal"
        )
    groups = _Groups.of(value, axes)
    turned = groups.taken(value)
    if centred:
        turned = turned.then(GroupMean(turned.shape, groups.size, remainder=True))
    module = RootMeanSquare(groups.size, groups.size if divisor is None else divisor, guard)
    result = turned.activated(Opaque(module, guard.constant, turned.shape))
    if centred:  # as it is without; products with what follows see it
        result = result.then(GroupMean(turned.shape, groups.size, remainder=True))
    return groups.back(result)


@functools.lru_cache(maxsize=4)  # the same deviations are squared and divided
def deviations(value: Value, axes: tuple[int, ...]) -> Value:
    """Each group of numbers without its mean."""
    groups = _Groups.of(value, axes)
    turned = groups.taken(value)
    return groups.back(turned.then(GroupMean(turned.shape, groups.size, remainder=True)))


@dataclass(frozen=True)
class _Groups:
    """Numbers along some axes of a value, as neighbours: ``order`` is that of its axes."""

    shape: Shape
    order: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, value: Value, axes: Sequence[int]) -> "_Groups":
        """Groups along axes, counted with the batch."""
        count = len(value.shape) + 1
        along = sorted({axis % count for axis in axes})
        if not along or along[0] == 0:
            raise UsageError(f"works along axes {along}: one or more within each input are asked")
        order = [0, *(axis for axis in range(1, count) if axis not in along), *along]
        size = math.prod(value.shape[axis - 1] for axis in along)
        return cls(value.shape, tuple(order), size)

    def taken(self, value: Value) -> Value:
        """One group after the other."""
        return linear.moved(value, lambda x: x.permute(self.order).flatten(1))

    def back(self, value: Value) -> Value:
        """Undo ``taken``."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        sizes = [self.shape[axis - 1] for axis in self.order[1:]]
        return linear.moved(value, lambda x: x.unflatten(1, sizes).permute(back))


def at_most(number: float, value: Value) -> float:
    """A Python number as a network uses it, rounded to its dtype, or the number if that is less."""
    return min(number, float(torch.tensor(number, dtype=value.point.like.dtype)))


def above(number: Fraction) -> float:
    """The smallest float found that is not below a positive fraction."""
    value = float(number)
    while Fraction(value) < number:
        value = math.nextafter(value, math.inf)
    return value


def root_above(square: Fraction) -> float:
    """The smallest float found that is not below the root of a positive fraction."""
    value = math.sqrt(square)
    while Fraction(value) ** 2 < square:
        value = math.nextafter(value, math.inf)
    return value
