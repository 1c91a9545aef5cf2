"""ONNX's arithmetic on values; see ``operators``.

Squares, roots and cubes wait for what follows them (``graphs/refusals.py``).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import sorting
from onelip.reading.graphs.normalisations import Root, Squares
from onelip.reading.graphs.refusals import Unfinished, only_locally
from onelip.reading.onnx.attributes import Attributes

Operator = Callable[..., Any]


def binary(operation: Callable[[Any, Any], Any]) -> Operator:
    """An operation on two operands of one shape after broadcasting."""

    def operator(attributes: Attributes, first: Any, second: Any) -> Any:
        return operation(*_together(attributes, first, second))

    return operator


def _together(attributes: Attributes, *parts: Any) -> Sequence[Any]:
    if not all(isinstance(part, (Value, Tensor)) for part in parts):
        return parts
    if attributes.version < 7 and attributes.get("broadcast", 0) and len(parts) == 2:
        parts = (parts[0], _aligned(attributes, *parts))
    return attributes.frame.broadcast(parts)


def _aligned(attributes: Attributes, first: Any, second: Any) -> Any:
    """The second operand with its axes where the first's begin, as early versions said."""
    axis = attributes.get("axis")
    if axis is None or not isinstance(second, Tensor):
        return second
    count = len(attributes.frame.shape(first)) if isinstance(first, Value) else first.ndim
    return second.reshape(*second.shape, *(1,) * (count - axis % count - second.ndim))


def add(first: Any, second: Any) -> Any:
    """The sum, or squares and cubes with what is added to them."""
    if isinstance(first, products.Cubic) or isinstance(second, products.Cubic):
        cubic, other = (first, second) if isinstance(first, products.Cubic) else (second, first)
        return cubic.plus(other) if isinstance(other, Value) else cubic.settled()
    if isinstance(first, Squares):
        return first.plus(second)
    return second.plus(first) if isinstance(second, Squares) else on.add(first, second)


def subtract(first: Any, second: Any) -> Value:
    """The difference."""
    if isinstance(first, Squares) or isinstance(second, Squares):
        raise UnboundedModuleError(
            "a difference of squares is not known: a variance is read as the mean square of "
            "deviations, not as the mean of squares less the square of the mean"
        )
    return on.subtract(settled(first), settled(second))


def settled(part: Any) -> Any:
    """The value that an unfinished result is."""
    return part.settled() if isinstance(part, Unfinished) else part


def multiply(first: Any, second: Any) -> Any:
    """The product; of a value with itself or a multiple, squares and cubes."""
    for x, other in ((first, second), (second, first)):
        if isinstance(x, (products.Cubic, Squares)) and isinstance(other, Tensor):
            return x.times(float(other)) if other.ndim == 0 else on.multiply(settled(x), other)
        if isinstance(x, Squares) and x.plain and x.parts[0] is other:
            return products.Cubic(x.parts[0], 1 / x.divisor)
        if isinstance(x, Value) and isinstance(other, Value):
            square = Squares.product(x, other)
            if square is not None:
                return square
    for value, root in ((first, second), (second, first)):
        if isinstance(root, Root) and isinstance(value, Value):
            return root.divides(value) if root.inverse else on.multiply(value, root.settled())
    return on.multiply(settled(first), settled(second))


def divide(first: Any, second: Any) -> Any:
    """The quotient: by a constant, by a root mean square, or of a softsign."""
    if isinstance(first, Squares) and isinstance(second, Tensor) and second.ndim == 0:
        return first.times(1 / float(second)) if float(second) else first.settled()
    if isinstance(second, Root) and isinstance(first, Value) and not second.inverse:
        return second.divides(first)
    if isinstance(second, Root) and isinstance(first, Tensor) and bool((first == 1).all()):
        return reciprocal(None, second)
    if isinstance(first, Value) and isinstance(second, Value):
        softsign = products.softsign(first, second)
        if softsign is not None:
            return softsign
    return on.divide(settled(first), settled(second))


def total(attributes: Attributes, *parts: Any) -> Any:
    """The sum of any number of operands."""
    return functools.reduce(lambda a, b: binary(on.add)(attributes, a, b), parts)


def mean(attributes: Attributes, *parts: Any) -> Any:
    """The mean of any number of operands."""
    count = torch.tensor(float(len(parts)), dtype=torch.float64)
    return linear.divided(total(attributes, *parts), count)


def power(attributes: Attributes, value: Any, exponent: Any) -> Any:
    """A power with a constant exponent: 1/2, 1, 2 and 3 wait for what follows."""
    if isinstance(exponent, Value) or not isinstance(value, (Value, Root)):
        raise only_locally("a power of, or with, what depends on the input")
    powers = exponent.flatten().unique()
    power = float(powers[0]) if len(powers) == 1 else math.nan
    if power == 1:
        return value
    if power == 2 and isinstance(value, Root) and not value.inverse:
        return value.of
    if power == 2 and isinstance(value, Value):
        whole = attributes.frame.broadcast([value, exponent])[0]
        return Squares((whole,)) if isinstance(whole, Value) else whole
    if power == 3 and isinstance(value, Value):
        return products.Cubic(value)
    if power == 0.5 and isinstance(value, Squares):
        return Root(value)
    raise only_locally(f"the power {power:g}")


def tanh(_: Attributes, value: Any) -> Value:
    """The hyperbolic tangent, of a cubic polynomial too."""
    if isinstance(value, products.Cubic):
        return value.tanh()
    return on.layer(nn.Tanh(), settled(value))


def sqrt(_: Attributes, value: Any) -> Root:
    """The root of squares."""
    if isinstance(value, Squares):
        return Root(value)
    raise only_locally("a root, steep without limit near 0,")


def reciprocal(_: Any, value: Any) -> Root:
    """One over a root."""
    if isinstance(value, Root) and not value.inverse:
        return Root(value.of, inverse=True)
    raise only_locally("one over what depends on the input")


def extremes(pairwise: Callable[[Any, Any], Any]) -> Operator:
    """Of two operands or more."""

    def operator(attributes: Attributes, *parts: Any) -> Any:
        return functools.reduce(lambda a, b: binary(pairwise)(attributes, a, b), parts)

    return operator


def larger(first: Any, second: Any) -> Any:
    """The larger one of two operands; one may be a square."""
    for square, other in ((first, second), (second, first)):
        if isinstance(square, Squares) and isinstance(other, Tensor):
            return square.at_least(other)
    return sorting.maximum(settled(first), settled(second))


def log(_: Attributes, value: Any) -> Value:
    """Of a sigmoid, or of squares above a number: other logarithms have no constant."""
    if isinstance(value, Squares):
        return value.log()
    if isinstance(value, Unfinished):
        raise only_locally("a logarithm, steep without limit near 0,")
    before = products.argument(value, nn.Sigmoid)
    if before is None:
        raise only_locally("a logarithm, steep without limit near 0,")
    return on.layer(nn.LogSigmoid(), before)
