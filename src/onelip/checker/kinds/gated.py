"""More smooth activations, and any of them with other scales of its input and its result.

GELU is ``max(u, 0) - t Phi(-t)`` for ``t = |u|``, with Phi from a series of positive terms,
``Phi(t) = 1/2 + phi(t) (t + t^3 / 3 + t^5 / 15 + ...)``: the sum may be 2^60, so that phi has 192
bits after the point. The other functions are made of exponentials as those of ``smooth``.
"""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

LONG = 192  # bits after the point
END = 9  # 9 Phi(-9) is below 2^-59: 0 here
ZERO_AT_ZERO = "tanh", "elu", "silu", "gelu", "gelu-tanh", "mish", "softsign"
SCALABLE = (*ZERO_AT_ZERO, "softplus", "sigmoid")


def _pi() -> int:
    """Pi with LONG bits and 64 more, by Machin's formula."""
    one = 1 << LONG + 64

    def arctan(n: int) -> int:
        return sum((-1) ** k * (one // n ** (2 * k + 1) // (2 * k + 1)) for k in range(120))

    return 4 * (4 * arctan(5) - arctan(239))


PI = _pi()
DENSITY = math.isqrt((1 << 3 * LONG + 64) // (2 * PI))  # 1 / sqrt(2 pi)


def exponential(z: int) -> int:
    """``exp(-z)`` for z from 0 to 64, LONG bits: within 2^-170."""
    one, small = 1 << LONG, z >> 8
    total = term = one
    for k in range(1, 60):
        term = -(term * small >> LONG) // k
        total += term
    for _ in range(8):
        total = total * total >> LONG
    return total


def tail(t: int) -> int:
    """``Phi(-t)`` for t from 0 to 9, LONG bits: within 2^-70."""
    square, total, term, k = t * t >> LONG, t, t, 1
    while term >> LONG - 100 or k < 2 * END * END:  # from there on terms are halved
        k += 2
        term = (term * square >> LONG) // k
        total += term
    density = exponential(square >> 1) * DENSITY >> LONG
    return max((1 << LONG - 1) - (density * total >> LONG), 0)


def register(check: Any) -> None:
    """Add the activations: ``{"kind": name}``, and one with scales."""

    def smooth() -> Any:
        return check.KINDS["smooth"]

    def gelu(u: int) -> int:
        check.spend(1 << 18)
        point, t = smooth().POINT, abs(u)
        if t >= END << point:
            return 0
        t <<= LONG - point
        return -int(t * tail(t) >> 2 * LONG - point)

    def gelu_tanh(u: int) -> int:
        point, one = smooth().POINT, smooth().ONE
        t = min(abs(u), smooth().LARGEST << point)
        cubed = t + (t**3 * 44715 // 10**6 >> 2 * point)
        e = smooth().exponential(4 * cubed * DENSITY >> LONG)  # 2 sqrt(2 / pi)
        return int(-(t * e // (one + e)))

    def mish(u: int) -> int:
        point, one = smooth().POINT, smooth().ONE
        t = min(abs(u), smooth().LARGEST << point)
        e = smooth().exponential(t)
        square = e * e >> point
        over, under = (2 * square, one + 2 * e) if u >= 0 else (square + 2 * e, 2 * one)
        return int(-(t * over // (under + over)))

    def softsign(u: int) -> int:
        return int((u << smooth().POINT) // (smooth().ONE + abs(u)))

    functions: dict[str, tuple[Any, int, Fraction, Fraction]] = {
        "gelu": (gelu, 1, Fraction(-12905, 100000), Fraction(112905, 100000)),
        "gelu-tanh": (gelu_tanh, 1, Fraction(-12905, 100000), Fraction(112905, 100000)),
        "mish": (mish, 1, Fraction(-11253, 100000), Fraction(10885, 10000)),
        "softsign": (softsign, 0, Fraction(0), Fraction(1)),
    }

    def named(name: str, tensors: Any, inputs: Any) -> Any:
        return smooth().activation(check, functions[name], tensors, inputs)

    for name in functions:
        check.ACTIVATIONS[name] = (partial(named, name),)
    names = "of", "inner", "above", "below"
    check.ACTIVATIONS["scaled"] = (partial(scaled, check), *names)


def scaled(check: Any, tensors: Any, inputs: Any, of: Any, *names: Any) -> Any:
    """``c g(a x)``, c another number where a x > 0 than below."""
    check.known(SCALABLE, of, "of")
    a, above, below = (tensors.get(name, onto=inputs) for name in names)
    check.need(above.shape == below.shape, "above and below of other shapes")
    joined = of in ZERO_AT_ZERO or np.array_equal(above, below)
    check.need(joined, f"{of} is not 0 at 0: above and below have to be equal")
    g, inner = check.ACTIVATIONS[of][0](tensors, inputs), check.Grid.of(a)
    outer = check.Grid.of(np.stack([above, below]))
    inside, outside = ends(check, inner), ends(check, outer)
    corners = [p * q * r for p in (g.low, g.high) for q in inside for r in outside]
    low, high = min(corners), max(corners)
    most, steepest = max(high, -low), max(map(abs, inside))
    largest = max(map(abs, outside))

    def apply(x: Any) -> Any:
        u = replace(x, error=check.ZERO).times(inner, steepest)
        z = g.apply(replace(u, error=check.ZERO))
        factor = np.where(u.ints > 0, outer.ints[0], outer.ints[1])
        y = z.times(replace(outer, ints=factor), largest)
        # c g has slopes below the largest ones of g times those of c
        lost = max(g.high, -g.low) * largest * u.error
        return replace(y, error=check.upwards(y.error + lost + most * x.error))

    return check.Activation(low, high, inputs, apply)


def ends(check: Any, grid: Any) -> tuple[Any, Any]:
    """The least and the largest of numbers."""
    unit = check.two(grid.exponent)
    return int(grid.ints.min()) * unit - grid.error, int(grid.ints.max()) * unit + grid.error
