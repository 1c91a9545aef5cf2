"""The integers of the checker against Python's own, and its enclosures against high precision."""

import math
import random
from fractions import Fraction

import flint
import numpy as np
import pytest

from onelip.checker import check

RNG = np.random.default_rng(0)


def exactly(digits: list[np.ndarray]) -> np.ndarray:
    """Digits as Python integers."""
    return sum((d.astype(object) << (check.DIGIT * k) for k, d in enumerate(digits)), 0)


def integers(bits: int, *shape: int) -> np.ndarray:
    return RNG.integers(-(1 << bits), (1 << bits) + 1, shape)


@pytest.mark.parametrize("bits", [1, 18, 19, 37, 54, 55])
def test_digits(bits: int) -> None:
    a = integers(bits, 50)
    found = check.digits(a)
    assert all(np.abs(d).max() <= check.HALF for d in found)
    assert (exactly([d.astype(np.int64) for d in found]) == a).all()


@pytest.mark.parametrize("bits", [3, 37, 55])
@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 1, 1), (1, 300, 2)])
def test_products(bits: int, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = integers(bits, 3, m, k), integers(bits, 3, k, n)
    found = exactly(check.product(check.digits(a), check.digits(b)))
    expected = np.einsum("bmk,bkn->bmn", a.astype(object), b.astype(object))
    assert (found == expected).all()


def test_products_of_the_largest_digits_in_the_longest_sum() -> None:
    count = (1 << 53) // (3 << 36) - 1
    digits = [np.full((1, count + 5), float(check.HALF))] * 3
    found = exactly(check.product(digits, [d.T for d in digits]))
    value = int(exactly([d[:, :1].astype(np.int64) for d in digits])[0, 0])
    assert int(found[0, 0]) == value**2 * (count + 5)


@pytest.mark.parametrize("bits", [20, 37, 53])
def test_shortened(bits: int) -> None:
    for _ in range(20):
        levels = [integers(int(RNG.integers(1, 58)), 7) for _ in range(int(RNG.integers(1, 6)))]
        ints, exponent = check.shortened(levels, bits)
        assert np.abs(ints).max() <= 1 << bits
        off = exactly(levels) - (ints.astype(object) << exponent)
        assert max(map(abs, off)) * 100 <= 102 * (1 << exponent)


def test_frobenius_is_above_and_close() -> None:
    for bits in (2, 30, 50):
        a = integers(bits, 4, 3, 5)
        squares = (a.astype(object) ** 2).sum((1, 2)).max()
        bound = check.frobenius([a])
        assert squares <= bound**2 <= squares * Fraction(1001, 1000)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_grids(scale: float) -> None:
    a = RNG.normal(size=(6, 7)) * scale * 10.0 ** RNG.integers(-25, 3, (6, 7))
    a[0, 0] = 5e-324
    grid = check.Grid.of(a)
    off = [
        (Fraction(float(x)) - int(n) * check.two(grid.exponent)) ** 2
        for x, n in zip(a.flatten(), grid.ints.flatten(), strict=True)
    ]
    assert sum(off) <= grid.error**2


def test_roots_and_powers() -> None:
    for x in (Fraction(2), Fraction(1, 3), Fraction(10**60), Fraction(1, 10**60), Fraction(4)):
        root = check.root(x)
        assert x <= root**2 <= x * (1 + Fraction(1, 1 << 60))
        assert x <= check.upwards(x) <= x * (1 + Fraction(1, 1 << 60))
    assert check.upwards(Fraction(0)) == check.root(Fraction(0)) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 360, 5000])
def test_roots_of_unity(count: int) -> None:
    torus = check.KINDS["torus"]
    cosines, sines = torus.roots_of_unity(count)
    flint.ctx.prec = 200
    for k in range(0, count, max(1, count // 50)):
        angle = 2 * flint.arb.pi() * k / count
        for found, exact in ((cosines[k], angle.cos()), (sines[k], angle.sin())):
            assert abs(flint.arb(int(found)) - exact * 2**torus.ROOTS) < 1.0001


@pytest.mark.parametrize("terms", [1, 2, 5, 6, 9, 13])
def test_truncated_exponentials(terms: int) -> None:
    kind = check.KINDS["exponential"]
    for end in (0.1, 1.0, 3.0, 3.5):
        y = np.linspace(0, end, 2001)
        powers = sum((1j * y) ** k / math.factorial(k) for k in range(terms))
        most = float(np.abs(powers).max())
        for factor, expected in ((1 + 1e-6, True), (1 - 1e-6, False)):
            square = kind.polynomial(terms)
            square[0] -= Fraction(most * factor) ** 2
            assert kind.negative(square, Fraction(end) ** 2) is expected


@pytest.mark.parametrize("shape", [(3, 3), (5, 2), (2, 5), (1, 1), (40, 40)])
def test_norms_are_accepted_just_above_and_refused_just_below(shape: tuple[int, int]) -> None:
    for scale in (1e-200, 1e-3, 1.0, 1e200):
        weight = RNG.normal(size=shape) * scale
        norm = Fraction(float(np.linalg.norm(weight / scale, 2))) * Fraction(scale)
        grid = check.Grid.of(weight)

        def shown(claim: Fraction, grid: check.Grid = grid) -> bool:
            try:
                unit = check.two(grid.exponent)
                check.bounded(grid.ints, ((claim - grid.error) / unit) ** 2)
            except check.Invalid:
                return False
            return True

        assert shown(norm * (1 + Fraction(1, 1 << 32)))
        assert shown(norm * 2)
        assert not shown(norm * (1 - Fraction(1, 1 << 45)))
        assert not shown(norm / 2)


def test_exponentials() -> None:
    smooth, rng = check.KINDS["smooth"], random.Random(0)
    flint.ctx.prec = 300
    one = smooth.ONE
    points = [int(rng.choice([1, -1]) * 10 ** rng.uniform(-20, 2.2) * one) for _ in range(1000)]
    for u in [*points, 0, 1, -1, one, -one, 64 * one, -64 * one, 64 * one - 1, one - 1]:
        x = flint.arb(u) / one
        down, above = (-abs(x)).exp(), x if u > 0 else flint.arb(0)
        exact = {
            "softplus": (1 + down).log(),
            "tanh": x.tanh(),
            "sigmoid": 1 / (1 + (-x).exp()),
            "elu": flint.arb(0) if u > 0 else x.exp() - 1,
            "silu": x / (1 + (-x).exp()) - above,
        }
        for name, (function, *_) in smooth.FUNCTIONS.items():
            assert abs(flint.arb(function(u)) / one - exact[name]) < 2.0**-64, (name, u)
