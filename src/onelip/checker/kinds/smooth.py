"""Activations made of exponentials, in Python's integers: exp and log1p with counted error.

Each is ``c max(u, 0) + b(u)`` with a bounded b, which is computed entry by entry from
``e = exp(-|u|)``: softplus is ``max(u, 0) + log(1 + e)``, and so on. Numbers have 80 bits after the
point, results 50, and are within one unit of that.
"""

from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

POINT, RESULT = 80, 50  # bits after the point
ONE = 1 << POINT
HALVINGS, TERMS = 8, 12  # exp(-f) = exp(-f / 2^8)^(2^8), f < 1
LARGEST = 64  # exp(-64) is below 2^-92: 0 here
FAR = 100  # bits of a number that is as good as infinite


def exponential(t: int) -> int:
    """``exp(-t)`` for t >= 0, within 2^-64."""
    if t >= LARGEST << POINT:
        return 0
    small = (t & (ONE - 1)) >> HALVINGS
    total = term = ONE
    for k in range(1, TERMS):
        term = -(term * small >> POINT) // k
        total += term
    for _ in range(HALVINGS):
        total = total * total >> POINT
    return total * POWERS[t >> POINT] >> POINT


def logarithm(e: int) -> int:
    """``log(1 + e)`` for e from 0 to 1, within 2^-64: ``2 artanh(e / (2 + e))``."""
    z = (e << POINT) // (2 * ONE + e)
    square, power, total = z * z >> POINT, z, z
    for k in range(3, 55, 2):
        power = power * square >> POINT
        total += power // k
    return 2 * total


def _powers() -> list[int]:
    """``exp(-n)`` for whole n, from ``exp(-1)`` by its series with more bits."""
    more = 64
    total = term = 1 << (POINT + more)
    for k in range(1, 60):
        term = -term // k
        total += term
    found = [1 << (POINT + more)]
    for _ in range(LARGEST):
        found.append(found[-1] * total >> (POINT + more))
    return [number >> more for number in found]


POWERS = _powers()


def softplus(u: int) -> int:
    """What softplus has above ``max(u, 0)``."""
    return logarithm(exponential(abs(u)))


def sigmoid(u: int) -> int:
    """``1 / (1 + exp(-u))``."""
    e = exponential(abs(u))
    return ((ONE if u >= 0 else e) << POINT) // (ONE + e)


def tanh(u: int) -> int:
    """The hyperbolic tangent."""
    e = exponential(2 * abs(u))
    value = ((ONE - e) << POINT) // (ONE + e)
    return value if u >= 0 else -value


def elu(u: int) -> int:
    """``exp(u) - 1`` below 0."""
    return 0 if u >= 0 else exponential(-u) - ONE


def silu(u: int) -> int:
    """What ``u sigmoid(u)`` has below ``max(u, 0)``; u is cut off where that is nothing."""
    t = min(abs(u), LARGEST << POINT)
    e = exponential(t)
    return -(t * e // (ONE + e))


FUNCTIONS: dict[str, tuple[Any, int, Fraction, Fraction]] = {
    "softplus": (softplus, 1, Fraction(0), Fraction(1)),
    "sigmoid": (sigmoid, 0, Fraction(0), Fraction(1, 4)),
    "tanh": (tanh, 0, Fraction(0), Fraction(1)),
    "elu": (elu, 1, Fraction(0), Fraction(1)),
    "silu": (silu, 1, Fraction(-1, 10), Fraction(11, 10)),
}
"""The bounded part, whether ``max(u, 0)`` is added, and slopes."""


def register(check: Any) -> None:
    """Add the activations: ``{"kind": name}``."""
    for name, function in FUNCTIONS.items():
        check.ACTIVATIONS[name] = (partial(activation, check, function),)


def activation(check: Any, function: Any, _: Any, inputs: Any) -> Any:
    """An activation by its entry in the table."""
    bounded, added, low, high = function
    most = max(high, -low)

    def apply(x: Any) -> Any:
        check.spend(x.ints.size << 16)
        shift = POINT + x.exponent
        flat = x.ints.reshape(-1).tolist()
        if shift >= 0:
            flat = [n << shift for n in flat] if shift < 1000 else [_far(n) for n in flat]
        else:  # less than a unit of 2^-80 is cut off
            flat = [n >> -shift for n in flat]
        found = [bounded(n) >> (POINT - RESULT) for n in flat]
        ints = np.array(found, np.int64).reshape(x.ints.shape)
        y = check.Grid(ints, -RESULT, check.ZERO).off(102)
        y = check.Grid.rounded([y.ints], y.exponent, y.error)
        if added:
            y = replace(x, ints=np.maximum(x.ints, 0), error=check.ZERO).plus(y)
        return replace(y, error=check.upwards(y.error + most * x.error))

    return check.Activation(low, high, inputs, apply)


def _far(n: int) -> int:
    """A number so large that functions are there what they are at infinity, or 0, as n."""
    return (n > 0) * (ONE << FAR) - (n < 0) * (ONE << FAR)
