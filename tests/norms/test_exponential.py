"""The truncated exponential against ball arithmetic, matrices and known limits of stability."""

import math
from fractions import Fraction

import pytest
import torch
from flint import arb, ctx, fmpq, fmpq_poly, fmpz_poly
from hypothesis import given, settings
from hypothesis import strategies as st

from onelip.norms.exponential import squared_modulus, truncated_exponential
from tests.oracles import is_above, relative_excess, sigma_max

NORMS = [0.0, 1e-3, 0.7, 1.0, 1.5, 1.6, 2.0, 2.9, 3.1, 3.45, 5.0, 9.5, 40.0]


def _square(terms: int) -> fmpq_poly:
    """|p(i theta)|^2 in t = theta^2, from the series of cosine and sine."""
    real = [fmpq((-1) ** j, math.factorial(2 * j)) for j in range((terms + 1) // 2)]
    imaginary = [fmpq((-1) ** j, math.factorial(2 * j + 1)) for j in range(terms // 2)]
    return fmpq_poly(real) ** 2 + fmpq_poly([0, 1]) * fmpq_poly(imaginary) ** 2


def _largest(terms: int, norm: float) -> arb:
    """The largest |p| on [0, norm], as a ball: at 0, at the end, or where the slope is 0."""
    square, end = _square(terms), arb(norm) ** 2
    found = [arb(1), _value(square, end)]
    slope = fmpz_poly([int(c * square.derivative().denom()) for c in square.derivative().coeffs()])
    for root, _ in slope.complex_roots() if slope.degree() > 0 else []:
        if not root.imag.is_zero() and not root.imag.contains(0):
            continue
        if not root.real <= 0 and not root.real >= end:
            found.append(_value(square, root.real))
    largest = found[0]
    for value in found:
        largest = largest.max(value)
    return largest.sqrt()


def _value(polynomial: fmpq_poly, at: arb) -> arb:
    value = arb(0)
    for coefficient in reversed(polynomial.coeffs()):
        value = value * at + arb(coefficient)
    return value


def test_coefficients(each):
    for terms in each(range(1, 26)):
        known = [Fraction(int(c.p), int(c.q)) for c in _square(terms).coeffs()]
        ours = squared_modulus(terms)
        assert ours[: len(known)] == known
        assert not any(ours[len(known) :])


def test_above_the_largest_value_and_no_more_than_a_hair(each):
    for terms in each([*range(1, 17), 25]):
        with ctx.workprec(400):
            for norm in NORMS:
                bound, truth = truncated_exponential(norm, terms), _largest(terms, norm)
                assert is_above(bound, truth.lower())
                assert relative_excess(bound, truth) < 1e-12


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0, 1e8), st.integers(1, 16))
def test_any_norm(norm, terms):
    with ctx.workprec(400):
        bound, truth = truncated_exponential(norm, terms), _largest(terms, norm)
        assert is_above(bound, truth.lower())
        assert relative_excess(bound, truth) < 1e-12


LIMITS = {4: 1.7320508, 5: 2.8284271, 8: 1.7644213, 9: 3.3951402, 12: 1.7011882, 13: 3.3793773}


@pytest.mark.parametrize("terms", LIMITS)
def test_remainders_0_and_1_modulo_4_stretch_nothing_up_to_a_limit(terms):
    assert float(truncated_exponential(LIMITS[terms] - 1e-6, terms)) == 1
    assert float(truncated_exponential(LIMITS[terms] + 1e-6, terms)) > 1


@pytest.mark.parametrize("terms", [2, 3, 6, 7, 10, 11])
def test_remainders_2_and_3_stretch_from_the_start(terms):
    excess = float(truncated_exponential(0.5, terms)) - 1
    taylor = 0.5**terms / math.factorial(terms)
    assert 0 < excess < taylor * (0.51 if terms % 4 == 3 else 1)


def test_six_terms_stay_below_a_known_maximum():
    """Where the Taylor polynomial 1 - t / 2 + t^2 / 24 of the cosine is 0."""
    top = math.sqrt(6 - math.sqrt(12))
    value = abs(sum((1j * top) ** j / math.factorial(j) for j in range(6)))
    assert 1.0047 < value < 1.0048
    for norm in (top, 2.0, 2.8, 3.3):
        assert float(truncated_exponential(norm, 6)) == pytest.approx(value, rel=1e-12)
    assert float(truncated_exponential(3.5, 6)) > value + 0.01


@pytest.mark.parametrize("norm", [0.3, 1.5, 2.5, 8.0])
@pytest.mark.parametrize("terms", [4, 6, 13])
def test_skew_matrices(norm, terms):
    """Never above the bound; with one plane turned by the worst angle, equal to it."""
    largest = 0.0
    for angle in (*torch.linspace(0, norm, 400).tolist(), math.sqrt(6 - math.sqrt(12))):
        if angle > norm:
            continue
        free = torch.randn(5, 5, dtype=torch.float64)
        skew = free - free.T
        skew *= angle / sigma_max(skew)
        power, series = torch.eye(5, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
        for j in range(terms):
            series = series + power / math.factorial(j)
            power = power @ skew
        largest = max(largest, sigma_max(series))
    bound = float(truncated_exponential(norm, terms))
    assert bound * (1 - 1e-3) < largest <= bound * (1 + 1e-12)


def test_huge_norms_grow_like_the_last_power():
    for terms in (2, 6, 13):
        bound = float(truncated_exponential(1e6, terms))
        assert bound == pytest.approx(1e6 ** (terms - 1) / math.factorial(terms - 1), rel=1e-9)


def test_out_of_range_is_infinite():
    assert truncated_exponential(1e200, 6) == math.inf
    assert truncated_exponential(math.inf, 6) == math.inf


def test_tiny_norms_are_no_more_than_rounding():
    assert float(truncated_exponential(5e-324, 5)) == 1
    assert 1 < float(truncated_exponential(1e-160, 6)) <= 1 + 2**-52


@pytest.mark.parametrize(("norm", "terms"), [(-1.0, 5), (math.nan, 5), (1.0, 0)])
def test_what_makes_no_sense(norm, terms):
    with pytest.raises(ValueError, match="norm >= 0 and terms >= 1"):
        truncated_exponential(norm, terms)
