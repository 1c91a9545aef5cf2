"""Values of further activations, in fractions or with a hundred decimal digits."""

import itertools
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

Matrix = Any  # of fractions, dtype object
Get = Callable[[str | None], Matrix]
Record = dict[str, Any]
DIGITS = 100


def decimal(f: Callable[..., Decimal]) -> Callable[..., Fraction]:
    """The function of fractions that a function of decimal numbers is."""

    def value(*x: Fraction) -> Fraction:
        with localcontext() as context:
            context.prec = DIGITS
            return Fraction(f(*(Decimal(a.numerator) / Decimal(a.denominator) for a in x)))

    return value


def series(first: Decimal, ratio: Callable[[int], Decimal]) -> Decimal:
    """A sum of terms by their ratios, until they count no more."""
    total, term, k = first, first, 0
    while term and term.adjusted() > -DIGITS - 20:
        k += 1
        term *= ratio(k)
        total += term
    return total


def _arctangent(x: Decimal) -> Decimal:
    """Of a number near 0: after half of the angle was taken eight times."""
    for _ in range(8):
        x /= 1 + (1 + x * x).sqrt()
    square = x * x
    return 256 * series(x, lambda k: -square * (2 * k - 1) / (2 * k + 1))


def _pi() -> Decimal:
    return 4 * _arctangent(Decimal(1))


def _direction(x: Decimal, y: Decimal) -> Decimal:
    """The angle of a point that is not 0."""
    if abs(y) > abs(x):
        return (_pi() / 2).copy_sign(y) - _arctangent(x / y)
    turned = _arctangent(y / x)
    return turned if x > 0 else turned + _pi()


def _cosine(x: Decimal) -> Decimal:
    x %= 2 * _pi()
    square = x * x
    return series(Decimal(1), lambda k: -square / (2 * k * (2 * k - 1)))


def _sine(x: Decimal) -> Decimal:
    x %= 2 * _pi()
    square = x * x
    return series(x, lambda k: -square / (2 * k * (2 * k + 1)))


# Functions of one number.


@decimal
def gelu(x: Decimal) -> Decimal:
    """The number times the normal distribution function."""
    square = x * x
    ratio = lambda k: -square * (2 * k - 1) / (2 * k * (2 * k + 1))  # noqa: E731
    return x / 2 + x * series(x, ratio) / (2 * _pi()).sqrt()


@decimal
def gelu_tanh(x: Decimal) -> Decimal:
    """The same by a hyperbolic tangent."""
    u = (2 / _pi()).sqrt() * (x + Decimal("0.044715") * x**3)
    return x / (1 + (-2 * u).exp())


@decimal
def mish(x: Decimal) -> Decimal:
    """The number times tanh of softplus: ``tanh(log p)`` is ``(p^2 - 1) / (p^2 + 1)``."""
    square = (1 + x.exp()) ** 2
    return x * (square - 1) / (square + 1)


def softsign(x: Fraction) -> Fraction:
    """A fraction."""
    return x / (1 + abs(x))


# Points of the plane.


@decimal
def _folded(x: Decimal, y: Decimal, *angles: Decimal) -> Decimal:
    """The angle that a point has after a fold: rays, then as many peaks."""
    phi, turn, n = _direction(x, y), 2 * _pi(), len(angles) // 2
    apart = [(phi - ray) % turn for ray in angles[:n]]
    circle = [min(abs(d), turn - abs(d)) for d in apart]
    return max(peak - d for peak, d in zip(angles[n:], circle, strict=True))


_length = decimal(lambda x, y: (x * x + y * y).sqrt())
_cos, _sin = decimal(_cosine), decimal(_sine)


def fold(get: Get, record: Record, x: Matrix) -> Matrix:
    """By angles."""
    rays, peaks = get(record["rays"]), get(record["peaks"])
    points = x.reshape(rays.shape[1], 2, -1)
    found = points.copy()
    for pair, place in np.ndindex(points.shape[0], points.shape[2]):
        at = points[pair, :, place]
        if at.any():
            angle, size = _folded(*at, *rays[:, pair], *peaks[:, pair]), _length(*at)
            found[pair, :, place] = size * _cos(angle), size * _sin(angle)
    return found.reshape(x.shape)


def _pairs(x: Matrix, one: Callable[[int, Fraction, Fraction], Fraction]) -> Matrix:
    """One number for each point, of channels i and i + pairs."""
    half = x.reshape(2, len(x) // 2, -1)
    found = half[0].copy()
    for pair, place in np.ndindex(found.shape):
        found[pair, place] = one(pair, half[0, pair, place], half[1, pair, place])
    return found.reshape(len(x) // 2, *x.shape[1:])


def rays(get: Get, record: Record, x: Matrix) -> Matrix:
    """By the cosine and the sine."""
    angles = get(record["angles"])

    def one(pair: int, first: Fraction, second: Fraction) -> Fraction:
        c, s = _cos(angles[pair]), abs(_sin(angles[pair]))
        if c * first + s * abs(second) >= 0:
            return c * abs(second) - s * first
        return _length(first, second) * (1 if c > 0 else -1)

    return _pairs(x, one)


def polygon(get: Get, record: Record, x: Matrix) -> Matrix:
    """The root of the least square of a distance."""
    corners = get(record["corners"])

    def one(pair: int, first: Fraction, second: Fraction) -> Fraction:
        point, chain = np.array([first, second], object), corners[:, :, pair]
        squares = [(point - chain[0]) @ (point - chain[0])]
        for start, end in itertools.pairwise(chain):
            along = end - start
            size = along @ along
            share = (point - start) @ along / size if size else Fraction(0)
            away = point - start - min(max(share, Fraction(0)), Fraction(1)) * along
            squares.append(away @ away)
        return _root(Fraction(min(squares)))

    return _pairs(x, one)


_root = decimal(lambda x: x.sqrt())


def piecewise(get: Get, record: Record, x: Matrix) -> Matrix:
    """The sum of the page."""
    knots, slopes, bends, value = (
        get(record[name]) for name in ("knots", "slopes", "bends", "value")
    )
    y = value + slopes[0] * np.minimum(x - knots[0], Fraction(0))
    for i in range(len(knots) - 1):
        t = np.minimum(np.maximum(x, knots[i]), knots[i + 1]) - knots[i]
        y = y + slopes[i + 1] * t
        y = y if bends is None else y + bends[i] * t * t / 2
    return y + slopes[-1] * np.maximum(x - knots[-1], Fraction(0))


def piecewise_slopes(get: Get, record: Record) -> tuple[Fraction, Fraction]:
    """At the ends of pieces."""
    knots, slopes, bends = (get(record[name]) for name in ("knots", "slopes", "bends"))
    ends = [*slopes.flat]
    if bends is not None:
        ends += [*(slopes[1:-1] + bends * (knots[1:] - knots[:-1])).flat]
    return min(ends), max(ends)


def _contraction(get: Get, record: Record) -> tuple[Fraction, Fraction]:
    return Fraction(-1), Fraction(1)


SHAPES: dict[str, tuple[Callable[..., Matrix], Callable[..., tuple[Fraction, Fraction]]]] = {
    "fold": (fold, _contraction),
    "rays": (rays, _contraction),
    "polygon": (polygon, _contraction),
    "piecewise": (piecewise, piecewise_slopes),
}
"""Values and slopes."""
