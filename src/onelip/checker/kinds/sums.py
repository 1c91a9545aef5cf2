"""What rounding does to sums of products, in any order; ``rounding.py`` asks.

With s the sum of the absolute terms, no sum of some of them is above ``m = (s + |result|) / 2``.
Each of n additions loses u of a sum of some terms and of the error e so far, and each product u of
itself, so ``e <= u s + n u (m + e)``. At a distance d from a vector, s is larger by at most
``|| |W| || d``, and m by at most ``(|| |W| || + |W|) d / 2``.
"""

import copy
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np


class Arithmetic(NamedTuple):
    """Floating-point numbers: an operation loses ``unit`` of its result, and ``lost`` beside it."""

    unit: Fraction
    lost: Fraction
    most: Fraction
    dtype: Any


FORMATS = {
    "float32": Arithmetic(Fraction(1, 2**24), Fraction(1, 2**124), Fraction(2**100), np.float32),
    "float64": Arithmetic(Fraction(1, 2**53), Fraction(1, 2**1020), Fraction(2**1000), np.float64),
}


def arithmetics(numbers: str, sums: str) -> tuple[Arithmetic, Arithmetic]:
    """What numbers and sums lose; an operation may be rounded in a longer format first."""
    short, long = FORMATS[numbers], FORMATS[sums]
    twice = short._replace(unit=short.unit + 2 * long.unit)
    return (short, short) if numbers == sums else (twice, long)


def register(_: Any) -> None:
    """Nothing to add: no record is of this kind."""


class Terms(NamedTuple):
    """A sum of products: what rounds in it, around each sample of a batch."""

    linear: Any
    additions: int  # n
    wide: Fraction  # the norm of the absolute weights
    high: list[Fraction]  # |s + n m| of each sample
    most: list[Fraction]  # |s|
    long: list[Fraction]  # |W a + b|

    @property
    def spread(self) -> Fraction:
        """By how much s + n m grows with a distance."""
        norm: Fraction = self.linear.norm
        return self.wide + self.additions * (self.wide + min(self.wide, norm)) / 2


class Sums:
    """Sums in one arithmetic of numbers of another, which is no longer."""

    def __init__(self, check: Any, numbers: Arithmetic, sums: Arithmetic) -> None:
        self.check, self.numbers, self.sums = check, numbers, sums

    def fits(self, length: Fraction) -> None:
        """Refuse lengths with which something may overflow."""
        self.check.need(length < self.numbers.most, "numbers may overflow")

    def root(self, count: int) -> Fraction:
        """Upper bound of the root of a count."""
        found: Fraction = self.check.root(Fraction(count))
        return found

    def inner(self, x: Any, y: Any) -> list[Fraction]:
        """Inner products of the absolute numbers of two batches, exact."""
        check, found = self.check, [0] * len(x.ints)
        check.spend(x.ints.size << 10)
        p, q = (check.carried([np.abs(z.ints).reshape(len(z.ints), -1)]) for z in (x, y))
        for i, first in enumerate(p):
            for j, second in enumerate(q):
                parts = (first * second).sum(1).tolist()
                found = [
                    a + (b << check.DIGIT * (i + j)) for a, b in zip(found, parts, strict=True)
                ]
        unit = check.two(x.exponent + y.exponent)
        return [number * unit for number in found]

    def lengths(self, x: Any) -> list[Fraction]:
        """Upper bounds of the lengths of a batch."""
        return [self.check.root(square) + x.error for square in self.inner(x, x)]

    def extent(self, linear: Any) -> tuple[Fraction, int]:
        """A bound of the norm of the absolute weights, and of the products of an entry."""
        of = linear.of if hasattr(linear, "of") else linear
        ints = of.weight.ints
        self.check.spend(ints.size << 8)
        shift = max(0, ints.size.bit_length() - 8)  # sums stay below 2^62
        most = largest((np.abs(ints) >> shift) + bool(shift), of)
        products = largest(np.ones(ints.shape, np.int64), of)[of is not linear]
        self.check.need(
            products * self.sums.unit <= Fraction(1, 2), "sums are too long to be bounded"
        )
        norm = self.root(math.prod(most)) * self.check.two(of.weight.exponent + shift)
        return self.check.upwards(norm + getattr(of, "error", of.weight.error)), products

    def terms(self, linear: Any, x: Any) -> tuple[Any, Any, Terms]:
        """Image of a batch, sums of absolute terms, and what rounds."""
        wide, products = self.extent(linear)
        n = products - (linear.shift is None)
        y, s = linear(x), absolute(linear, wide)(replace(x, ints=np.abs(x.ints)))
        a, b = 1 + Fraction(n, 2), Fraction(n, 2)  # of s and of |y| in s + n m
        squares = zip(self.inner(s, s), self.inner(s, y), self.inner(y, y), strict=True)
        off = a * s.error + b * y.error
        high = [self.check.root(a * a * p + 2 * a * b * q + b * b * r) + off for p, q, r in squares]
        return y, s, Terms(linear, n, wide, high, self.lengths(s), self.lengths(y))

    def error(self, terms: Terms, at: int, away: Fraction, scale: Fraction) -> Fraction:
        """R of the sum for a vector within ``away`` of ``scale`` times the sample's."""
        linear, count = terms.linear, self.root(math.prod(terms.linear.outputs))
        self.fits(scale * terms.most[at] + terms.wide * away)
        magnitude = scale * terms.high[at] + terms.spread * away
        length = scale * terms.long[at] + linear.norm * away
        flushed = terms.wide * self.numbers.lost * self.root(math.prod(linear.inputs))
        return self.rounded(terms.additions, magnitude, length, count, flushed)

    def rounded(
        self, n: int, magnitude: Fraction, length: Fraction, count: Fraction, flushed: Fraction
    ) -> Fraction:
        """What sums lose whose s + n m and results have these lengths.

        ``count`` is the root of their number; ``flushed`` is what they lose where each row takes
        subnormal inputs as it likes.
        """
        g = self.sums.unit / (1 - (n + 1) * self.sums.unit)
        error = g * magnitude + 4 * (n + 1) * self.sums.lost * count + flushed
        if self.sums is not self.numbers:
            error += self.numbers.unit * (length + error) + 2 * self.numbers.lost * count
        return error


def largest(a: Any, linear: Any) -> tuple[int, int]:
    """Largest sums of numbers >= 0 of a row, and of a column, of a matrix or a convolution."""
    if a.ndim == 2:
        return int(a.sum(1).max()), int(a.sum(0).max())
    taps, often = a.reshape(linear.groups, -1, *a.shape[1:]).sum(1), 1
    sides = zip(linear.inputs[1:], linear.outputs[1:], linear.stride, linear.dilation, strict=True)
    for axis, (n, m, s, d) in enumerate(sides, 2):
        # a pixel is seen by taps of one residue, and by each more than once if it is padded
        g = math.gcd(n, s) if linear.circular else s
        often *= -(-m * g // n) if linear.circular else 1
        residues = np.arange(taps.shape[axis]) * d % g
        parts = [taps.compress(residues == r, axis).sum(axis) for r in np.unique(residues)]
        taps = np.stack(parts, axis)
    return int(a.reshape(len(a), -1).sum(1).max()), int(taps.max()) * often


def absolute(linear: Any, norm: Fraction) -> Any:
    """A map with the absolute values of its numbers, whose norm is at most this."""
    other = copy.copy(linear)
    other.norm = norm
    if linear.shift is not None:
        other.shift = replace(linear.shift, ints=np.abs(linear.shift.ints))
    if hasattr(linear, "of"):
        other.of = absolute(linear.of, norm)
    else:
        other.weight = replace(linear.weight, ints=np.abs(linear.weight.ints))
    return other
