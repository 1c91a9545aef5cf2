"""Arithmetic on values and on what waits to become one: squares, cubes, roots and comparisons."""

from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains.value import Value
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import sorting
from onelip.reading.graphs.along_axes import averaged
from onelip.reading.graphs.clamps import clamped
from onelip.reading.graphs.normalisations import deviations
from onelip.reading.graphs.refusals import Unfinished, only_locally, settled
from onelip.reading.graphs.squares import Root, Squares, same_value


def add(first: Any, second: Any) -> Any:
    """The sum, or squares, roots and cubes with what is added to them."""
    for part, other in ((first, second), (second, first)):
        if isinstance(part, products.Cubic):
            return part.plus(other) if isinstance(other, Value) else part.settled()
    for part, other in ((first, second), (second, first)):
        if isinstance(part, (Squares, Root)):
            return part.plus(other)
    return on.add(first, second)


def deviation(first: Any, second: Any) -> Value | None:
    """The difference of a value and its own means, whose axes have size 1; None for others."""
    if not (isinstance(first, Value) and isinstance(second, Value)):
        return None
    if len(first.shape) != len(second.shape):
        return None
    sides = enumerate(zip(first.shape, second.shape, strict=True), 1)
    axes = tuple(axis for axis, (size, mean) in sides if size != mean)
    if not axes or any(second.shape[axis - 1] != 1 for axis in axes):
        return None
    if not same_value(averaged(first, axes, True), second):
        return None
    return deviations(first, axes)


def subtract(first: Any, second: Any) -> Any:
    """The difference; the mean of squares less the square of the mean is a variance."""
    if isinstance(first, Squares) and isinstance(second, Squares):
        return first.minus(second)
    return on.subtract(settled(first), settled(second))


def multiply(first: Any, second: Any) -> Any:
    """The product; of a value with itself or a multiple, squares and cubes."""
    for part, other in ((first, second), (second, first)):
        if isinstance(part, (products.Cubic, Squares)) and not isinstance(
            other, (Value, Unfinished)
        ):
            number = _single(other)
            return on.multiply(settled(part), other) if number is None else part.times(number)
        if isinstance(part, Squares) and part.plain and part.parts[0] is other:
            return products.Cubic(part.parts[0], 1 / part.divisor)
        if isinstance(part, Value) and isinstance(other, Value):
            square = Squares.product(part, other)
            if square is not None:
                return square
    for part, other in ((first, second), (second, first)):
        if isinstance(part, Root) and part.inverse:
            if isinstance(other, Value):
                return part.divides(other)
            if _single(other) == 1:
                return part
    return on.multiply(settled(first), settled(second))


def divide(first: Any, second: Any) -> Any:
    """The quotient: by a constant, by a root mean square, or of a softsign."""
    if isinstance(first, Squares) and (number := _single(second)) is not None:
        return first.times(1 / number) if number else first.settled()
    if isinstance(second, Root) and isinstance(first, Value) and not second.inverse:
        return second.divides(first)
    if isinstance(second, Root) and not _depends(first) and (torch.as_tensor(first) == 1).all():
        return reciprocal(second)
    if isinstance(first, Value) and isinstance(second, Value):
        softsign = products.softsign(first, second)
        if softsign is not None:
            return softsign
    return on.divide(settled(first), settled(second))


def _depends(part: Any) -> bool:
    """Whether it depends on the input."""
    return isinstance(part, (Value, Unfinished))


def _single(part: Any) -> float | None:
    """The number of a constant without axes."""
    if not isinstance(part, (int, float, Tensor)):
        return None
    number = torch.as_tensor(part, dtype=torch.float64)
    return float(number) if number.ndim == 0 else None


def power(value: Any, exponent: float) -> Any:
    """A power with a constant exponent: 1/2, -1/2, 2 and 3 wait for what follows."""
    if exponent == 1:
        return value
    if isinstance(value, Value) and exponent in (2, 3):
        return Squares((value,)) if exponent == 2 else products.Cubic(value)
    if isinstance(value, Squares) and exponent in (0.5, -0.5):
        return Root(value, inverse=exponent < 0)
    if isinstance(value, Root) and exponent == 2 and value.plain:
        return value.of
    if isinstance(value, Root) and exponent == -1:
        return reciprocal(value)
    raise only_locally(f"the power {exponent:g}")


def sqrt(value: Any) -> Root:
    """The root of squares."""
    if isinstance(value, Squares):
        return Root(value)
    raise only_locally("a root, steep without limit near 0,")


def reciprocal(value: Any) -> Root:
    """One over a root."""
    if isinstance(value, Root) and not value.inverse:
        return Root(value.of, True, value.shift, value.least)
    raise only_locally("one over what depends on the input")


def tanh(value: Any) -> Value:
    """The hyperbolic tangent, of a cubic polynomial too."""
    if isinstance(value, products.Cubic):
        return value.tanh()
    return on.layer(nn.Tanh(), settled(value))


def clamp(value: Any, low: Any = None, high: Any = None) -> Any:
    """A value between constants; squares and roots above a number wait for what follows."""
    if isinstance(value, (Squares, Root)) and low is not None and high is None:
        return value.at_least(low)
    return clamped(settled(value), low, high)


def larger(first: Any, second: Any) -> Any:
    """The larger one of two operands; one may be a square or a root."""
    for part, other in ((first, second), (second, first)):
        if isinstance(part, (Squares, Root)) and not _depends(other):
            return part.at_least(other)
    return sorting.maximum(settled(first), settled(second))


def log(value: Any) -> Value:
    """Of a sigmoid, or of squares above a number: other logarithms have no constant."""
    if isinstance(value, Squares):
        return value.log()
    before = None if isinstance(value, Unfinished) else products.argument(value, nn.Sigmoid)
    if before is None:
        raise only_locally("a logarithm, steep without limit near 0,")
    return on.layer(nn.LogSigmoid(), before)
