"""Squares and their roots, which become a length, a normalisation or a logarithm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Opaque
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.activation_products import gated
from onelip.reading.graphs.along_axes import averaged
from onelip.reading.graphs.clamps import clamped
from onelip.reading.graphs.normalisations import (
    Guard,
    at_most,
    deviations,
    normalised,
    root_above,
)
from onelip.reading.graphs.refusals import Unfinished, only_locally
from onelip.reading.graphs.shapes import stacked


class Length(nn.Module):
    """Roots of mean squares over parts, stacked first, and along some axes of them."""

    def __init__(self, of: "Squares") -> None:
        super().__init__()
        self.axes, self.keep = of.axes, of.keep
        self.divisor, self.guard = of.divisor, Guard(of.epsilon, of.floor)

    def forward(self, x: Tensor) -> Tensor:
        """The roots."""
        return self.squares(x).sqrt()

    def squares(self, x: Tensor) -> Tensor:
        """The mean squares."""
        squares = x.square().sum(1)
        if self.axes:
            squares = squares.sum(self.axes, keepdim=self.keep)
        return self.guard.squares(squares / self.divisor)


class LogLength(Length):
    """Logarithms of the mean squares."""

    def forward(self, x: Tensor) -> Tensor:
        """The logarithms."""
        return self.squares(x).log()


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
            number = self.single(other)
            if number is not None and not (self.epsilon or self.floor):
                return replace(self, epsilon=number)
        raise only_locally("a square")

    def minus(self, other: "Squares") -> "Squares":
        """The variance: the mean square less the square of the mean, as it is over real numbers.

        Raises:
            UnboundedModuleError: it is another difference.
        """
        if self.axes and other.plain and other.divisor == 1 and len(self.parts) == 1:
            value, (mean,) = self.parts[0], other.parts
            size = math.prod(value.shape[axis - 1] for axis in self.axes)
            own = same_value(averaged(value, self.axes, self.keep), mean)
            if own and self == Squares((value,)).summed(self.axes, self.keep, mean=True):
                return replace(self, parts=(deviations(value, self.axes),), divisor=size)
        raise UnboundedModuleError(
            "a difference of squares is not known, other than the mean of squares less the square "
            "of the mean"
        )

    def at_least(self, other: object) -> "Squares":
        """The larger one of it and a number that is not negative."""
        number = self.single(other)
        if number is None or self.epsilon or self.floor:
            raise only_locally("a square")
        return replace(self, floor=number)

    def single(self, other: object) -> float | None:
        """The number of a constant that changes no shape, if it is finite and not negative.

        A Python number may have been rounded upwards to the dtype of the network, or downwards:
        the less counts, since less leaves the steeper function.
        """
        if isinstance(other, (int, float)):
            number = torch.tensor(at_most(other, self.parts[0]), dtype=torch.float64)
        elif isinstance(other, Tensor):
            number = other
        else:
            return None
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
        return self.of_length(LogLength(self), root_above((1 if self.epsilon else 4) / least))

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
        shift: added to the root.
        least: below which the root is not, if it is above 0.
    """

    of: Squares
    inverse: bool = False
    shift: float = 0.0
    least: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether nothing was done with the root."""
        return not (self.inverse or self.shift or self.least)

    def settled(self) -> Value:
        """The length, which moves no more than the numbers do, divided by the root of a divisor."""
        if self.inverse:
            raise only_locally("one over a root")
        constant = root_above(1 / Fraction(self.of.divisor))
        length = self.of.of_length(Length(self.of), constant)
        length = on.add(length, self.shift) if self.shift else length
        return clamped(length, low=self.least) if self.least else length

    def plus(self, other: Any) -> "Root | Value":
        """Sum with a number that is not negative; of other things, that with the length."""
        number = self.of.single(other)
        if number is None or self.inverse or self.shift or self.least:
            return on.add(self.settled(), other)
        return replace(self, shift=number)

    def at_least(self, other: Any) -> "Root | Value":
        """The larger one of it and a number; of other things, that of the length."""
        number = self.of.single(other)
        if number is None or self.inverse or self.least:
            return clamped(self.settled(), low=other)
        return replace(self, least=number)

    def divides(self, value: Value) -> Value:
        """The quotient of the value whose squares these are.

        Raises:
            UnboundedModuleError: it is the quotient of another.
        """
        squares = self.of
        own = len(squares.parts) == 1 and same_value(squares.parts[0], value)
        if not own or not squares.axes or not squares.keep:
            raise only_locally("a division by what depends on the input")
        guard = Guard(squares.epsilon, squares.floor, self.shift, self.least)
        return normalised(value, squares.axes, guard, divisor=squares.divisor)


def same_value(first: Value, second: Value) -> bool:
    """Whether two values were made in the same way of the same point."""
    maps = zip(first.maps, second.maps, strict=False)
    equal = len(first.maps) == len(second.maps) and all(a is b for a, b in maps)
    return first.point is second.point and equal
