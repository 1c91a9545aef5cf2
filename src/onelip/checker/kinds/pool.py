"""Maxima and lengths of any groups of numbers.

Each result changes by at most as much as the numbers of its group, in Euclidean norm; a number that
is in m groups counts m times, so that the constant is the root of the largest m.
"""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

LOW = 1 << 62  # above any number
HALF = 22  # bits of the lower half of a number
WIDEST = 1 << 19  # numbers of a group: so many squares of halves stay below 2^63


def register(check: Any) -> None:
    """Add the activation: ``{"kind": "pool", "of", "index", "outputs"}``."""
    check.ACTIVATIONS["pool"] = (partial(pool, check), "of", "index", "outputs")


def pool(check: Any, tensors: Any, inputs: Any, of: Any, *rest: Any) -> Any:
    """Maxima or lengths of the groups that are the rows of an index; -1 stands for nothing."""
    name, outputs = rest
    check.known(("maximum", "length"), of, "of")
    shape, count = check.shape_of(outputs), math.prod(inputs)
    index = tensors.get(name, "iu", 2)
    inside = index.min() >= -1 and index.max() < count and (index >= 0).any(1).all()
    fits = inside and len(index) == math.prod(shape) and index.shape[1] <= WIDEST
    check.need(fits, "an index is out of range, or a group is empty or too large")
    check.spend(index.size << 7)
    index = index.astype(np.int64)
    most = int(np.bincount(index.reshape(-1) + 1)[1:].max())
    constant = check.ONE if most == 1 else check.root(Fraction(most))

    def apply(x: Any) -> Any:
        check.spend(len(x.ints) * index.size << (7 if of == "maximum" else 9))
        check.spend(len(x.ints) * len(index) << 12)
        rows = x.ints.reshape(len(x.ints), -1)
        found = [(maximum if of == "maximum" else length)(row, index) for row in rows]
        y = replace(x, ints=np.array(found).reshape(-1, *shape), error=check.ZERO)
        y = y.off(100 * (of == "length"))
        y = check.Grid.rounded([y.ints], y.exponent, y.error)
        return replace(y, error=check.upwards(y.error + constant * x.error))

    return check.Activation(-constant, constant, shape, apply)


def maximum(row: Any, index: Any) -> Any:
    """Largest number of each group."""
    return np.where(index < 0, -LOW, row[index]).max(1)


def length(row: Any, index: Any) -> Any:
    """Length of each group, rounded down."""
    taken = np.where(index < 0, 0, np.abs(row[index]))
    high, low = taken >> HALF, taken & ((1 << HALF) - 1)
    parts = [(high * high).sum(1), (2 * high * low).sum(1), (low * low).sum(1)]
    squares = zip(*(part.tolist() for part in parts), strict=True)
    return np.array([math.isqrt((a << 2 * HALF) + (b << HALF) + c) for a, b, c in squares])
