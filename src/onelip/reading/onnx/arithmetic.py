"""ONNX's arithmetic: operands are broadcast, and added up if there are many; see ``operators``."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.reading.graphs import arithmetic
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.refusals import only_locally
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


def subtract(attributes: Attributes, first: Any, second: Any) -> Any:
    """The difference; of a value and its means, before these are broadcast."""
    found = arithmetic.deviation(first, second)
    return binary(arithmetic.subtract)(attributes, first, second) if found is None else found


def single(function: Callable[[Any], Any]) -> Operator:
    """An operation on one operand."""
    return lambda _, value: function(value)


def total(attributes: Attributes, *parts: Any) -> Any:
    """The sum of any number of operands."""
    return functools.reduce(lambda a, b: binary(on.add)(attributes, a, b), parts)


def mean(attributes: Attributes, *parts: Any) -> Any:
    """The mean of any number of operands."""
    count = torch.tensor(float(len(parts)), dtype=torch.float64)
    return linear.divided(total(attributes, *parts), count)


def power(attributes: Attributes, value: Any, exponent: Any) -> Any:
    """A power with a constant exponent, one number."""
    if isinstance(exponent, Value):
        raise only_locally("a power of, or with, what depends on the input")
    powers = exponent.flatten().unique()
    number = float(powers[0]) if len(powers) == 1 else math.nan
    if number == 2 and isinstance(value, Value):
        value = attributes.frame.broadcast([value, exponent])[0]
    return arithmetic.power(value, number)


def extremes(pairwise: Callable[[Any, Any], Any]) -> Operator:
    """Of two operands or more."""

    def operator(attributes: Attributes, *parts: Any) -> Any:
        return functools.reduce(lambda a, b: binary(pairwise)(attributes, a, b), parts)

    return operator
