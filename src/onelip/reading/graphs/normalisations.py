r"""Divisions by root mean squares: layer, instance, group and RMS normalisation, and lengths.

:math:`g(y) = y / \sqrt{|y|^2 / d + \epsilon}` has the Jacobian :math:`(I - y y^T / (d s^2)) / s`
with :math:`s^2 = |y|^2 / d + \epsilon`. It is symmetric with the eigenvalues :math:`1 / s` across y
and :math:`\epsilon / s^3` along it; both are largest at y = 0, where they are
:math:`1 / \sqrt{\epsilon}`. So this is the Lipschitz constant of g, and the Jacobian at y = 0. A
normalisation that subtracts the mean first is g after the projection P onto the vectors of mean 0,
followed by a scale :math:`\gamma`; as g keeps that space, its constant is
:math:`|\mathrm{diag}(\gamma) P| / \sqrt{\epsilon}`, attained where all entries are equal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from onelip.chains import GroupMean, Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs.activation_products import gated
from onelip.reading.graphs.bounded_products import REACHES
from onelip.reading.graphs.refusals import Unfinished, only_locally
from onelip.reading.graphs.shapes import stacked


class RootMeanSquare(nn.Module):
    """Groups of ``size`` neighbours, each divided by the root of its mean square."""

    def __init__(self, size: int, divisor: float, epsilon: float) -> None:
        super().__init__()
        self.size, self.divisor, self.epsilon = size, divisor, epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Divide; the last axis holds the groups one after the other."""
        groups = x.unflatten(-1, (-1, self.size))
        squares = groups.square().sum(-1, keepdim=True) / self.divisor
        result: Tensor = (groups / (squares + self.epsilon).sqrt()).flatten(-2)
        return result


class Length(nn.Module):
    """Roots of mean squares over parts, stacked first, and along some axes of them."""

    def __init__(self, of: "Squares") -> None:
        super().__init__()
        self.axes, self.keep = of.axes, of.keep
        self.divisor, self.epsilon, self.floor = of.divisor, of.epsilon, of.floor

    def forward(self, x: Tensor) -> Tensor:
        """The roots."""
        return self.squares(x).sqrt()

    def squares(self, x: Tensor) -> Tensor:
        """The mean squares."""
        squares = x.square().sum(1)
        if self.axes:
            squares = squares.sum(self.axes, keepdim=self.keep)
        means: Tensor = (squares / self.divisor + self.epsilon).clamp_min(self.floor)
        return means


class LogLength(Length):
    """Logarithms of the mean squares."""

    def forward(self, x: Tensor) -> Tensor:
        """The logarithms."""
        return self.squares(x).log()


REACHES[RootMeanSquare] = lambda module: math.sqrt(module.divisor) * (1 + 1e-15)


def normalised(
    value: Value,
    axes: Sequence[int],
    epsilon: float,
    *,
    divisor: float | None = None,
    centred: bool = False,
) -> Value:
    """Each group of numbers divided by its root mean square, perhaps without its mean.

    Args:
        value: to be normalised.
        axes: along which a group lies, counted with the batch.
        epsilon: added to the mean square.
        divisor: of the sum of squares; None for the size of a group.
        centred: whether the mean is subtracted first.

    Raises:
        UnboundedModuleError: without an epsilon above 0 it jumps where all numbers are equal.
    """
    if not 0 < epsilon < math.inf:
        raise UnboundedModuleError(
            f"a normalisation with epsilon {epsilon} jumps where its numbers are all equal"
        )
    count = len(value.shape) + 1
    along = sorted({axis % count for axis in axes})
    if not along or along[0] == 0:
        raise UsageError(f"normalises along axes {along}: one or more within each input are asked")
    order = [0, *(axis for axis in range(1, count) if axis not in along), *along]
    size = math.prod(value.shape[axis - 1] for axis in along)
    turned = linear.moved(value, lambda x: x.permute(order).flatten(1))
    if centred:
        turned = turned.then(GroupMean(turned.shape, size, remainder=True))
    module = RootMeanSquare(size, size if divisor is None else divisor, epsilon)
    groups = turned.activated(Opaque(module, _root_above(1 / Fraction(epsilon)), turned.shape))
    if centred:  # as it is without; products with what follows see it
        groups = groups.then(GroupMean(turned.shape, size, remainder=True))
    back = [order.index(axis) for axis in range(count)]
    sizes = [value.shape[axis - 1] for axis in order[1:]]
    return linear.moved(groups, lambda x: x.unflatten(1, sizes).permute(back))


@dataclass(frozen=True)
class Squares(Unfinished):
    """Sums of squares of the numbers of some values of one shape, over axes.

    Attributes:
        parts: the values.
        axes: counted with the batch; none until they are summed.
        keep: whether the axes stay, with size 1.
        divisor: of the sum.
        epsilon: added to the quotient.
        floor: below which it is not, if it is above 0.
    """

    parts: tuple[Value, ...]
    axes: tuple[int, ...] = ()
    keep: bool = True
    divisor: float = 1
    epsilon: float = 0.0
    floor: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether it is the square of one value, and no sum."""
        return len(self.parts) == 1 and not (self.axes or self.epsilon or self.floor)

    def settled(self) -> Value:
        """The square of a value whose numbers are bounded."""
        if not self.plain or self.divisor != 1:
            raise only_locally("a square")
        return gated(self.parts[0], self.parts[0])

    @classmethod
    def product(cls, first: Value, second: Value) -> "Squares | None":
        """The product of a value and a positive multiple of it; None for other values."""
        for line in second.lines():
            if line.value is first and line.shift == 0 and 0 < line.factor < math.inf:
                divisor = 1 / line.factor
                below = divisor if line.factor == 1 else math.nextafter(divisor, 0.0)
                return cls((first,), divisor=below)
        return None

    def summed(self, axes: Sequence[int], keep: bool, *, mean: bool) -> "Squares":
        """Sum over axes, or mean."""
        shape = self.parts[0].shape
        if self.axes or self.epsilon or self.floor or self.divisor != 1 or not axes:
            raise only_locally("a sum of squares")
        size = math.prod(shape[axis - 1] for axis in axes) if mean else 1
        return replace(self, axes=tuple(axes), keep=keep, divisor=size)

    def times(self, number: float) -> "Squares":
        """A positive multiple."""
        if not 0 < number < math.inf or self.epsilon or self.floor:
            raise only_locally("a square")
        return replace(self, divisor=math.nextafter(self.divisor / number, 0.0))

    def plus(self, other: object) -> "Squares":
        """Sum with other squares, or with a number that is not negative."""
        if isinstance(other, Squares):
            sums = [(q.axes, q.epsilon, q.floor, q.divisor) for q in (self, other)]
            same = self.parts[0].shape == other.parts[0].shape
            if same and all(sum_ == ((), 0, 0, 1) for sum_ in sums):
                return Squares((*self.parts, *other.parts))
        else:
            number = self._single(other)
            if number is not None and not (self.epsilon or self.floor):
                return replace(self, epsilon=number)
        raise only_locally("a square")

    def at_least(self, other: Tensor) -> "Squares":
        """The larger one of it and a number that is not negative."""
        number = self._single(other)
        if number is None or self.epsilon or self.floor:
            raise only_locally("a square")
        return replace(self, floor=number)

    def _single(self, other: object) -> float | None:
        """The number of a constant that changes no shape, if it is finite and not negative."""
        if not isinstance(other, (int, float, Tensor)):
            return None
        number = torch.as_tensor(other)
        axes = len(self.parts[0].shape) - (0 if self.keep else len(self.axes))
        if number.numel() != 1 or number.ndim > axes:
            return None
        return float(number) if 0 <= float(number) < math.inf else None

    def log(self) -> Value:
        r"""Its logarithm, as in log spectra.

        With r for the length of the numbers and d for the divisor, the gradient of
        :math:`\log(r^2 / d + \epsilon)` is :math:`2 r / (r^2 + d \epsilon)`, at most
        :math:`1 / \sqrt{d \epsilon}`; that of :math:`\log \max(r^2 / d, m)` is :math:`2 / r` from
        :math:`r = \sqrt{d m}` on and 0 before.
        """
        if not (self.epsilon or self.floor):
            raise only_locally("a logarithm of a square, steep without limit near 0,")
        least = Fraction(self.divisor) * Fraction(self.epsilon or self.floor)
        return self.of_length(LogLength(self), _root_above((1 if self.epsilon else 4) / least))

    def of_length(self, module: nn.Module, constant: float) -> Value:
        """A function of it with a Lipschitz constant."""
        value = stacked(self.parts, 1)
        shape = tuple(module(torch.empty(1, *value.shape, device="meta")).shape[1:])
        return value.activated(Opaque(module, constant, shape))


@dataclass(frozen=True)
class Root(Unfinished):
    """The root of sums of squares, or one over it.

    Attributes:
        of: the sums.
        inverse: whether it is one over the root.
    """

    of: Squares
    inverse: bool = False

    def settled(self) -> Value:
        """The length, which moves no more than the numbers do, divided by the root of a divisor."""
        if self.inverse:
            raise only_locally("one over a root")
        constant = _root_above(1 / Fraction(self.of.divisor))
        return self.of.of_length(Length(self.of), constant)

    def divides(self, value: Value) -> Value:
        """The quotient of the value whose squares these are.

        Raises:
            UnboundedModuleError: it is the quotient of another.
        """
        squares = self.of
        own = len(squares.parts) == 1 and _same(squares.parts[0], value)
        if not own or not squares.axes or not squares.keep or squares.floor:
            raise only_locally("a division by what depends on the input")
        return normalised(value, squares.axes, squares.epsilon, divisor=squares.divisor)


def _same(first: Value, second: Value) -> bool:
    maps = zip(first.maps, second.maps, strict=False)
    equal = len(first.maps) == len(second.maps) and all(a is b for a, b in maps)
    return first.point is second.point and equal


def _root_above(square: Fraction) -> float:
    """The smallest float found that is not below the root of a positive fraction."""
    value = math.sqrt(square)
    while Fraction(value) ** 2 < square:
        value = math.nextafter(value, math.inf)
    return value
