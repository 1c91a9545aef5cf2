r"""Norm of a truncated exponential of a skew-symmetric matrix.

The eigenvalues of a skew-symmetric A are :math:`i \theta` with :math:`|\theta| \le \|A\|`, and A
is normal, so the norm of :math:`p(A) = \sum_{j<k} A^j / j!` is the largest :math:`|p(i \theta)|`.
With :math:`t = \theta^2` its square is a polynomial of degree k - 1 with rational coefficients,

.. math:: |p(i \theta)|^2 = \sum_m t^m \sum_{j + l = 2 m} \frac{(-1)^{m + j}}{j!\, l!} ,

and on an interval a polynomial lies between its smallest and its largest Bernstein coefficient.
Halving the interval brings these as close as one likes. All of it is exact, in fractions.

The derivative of the square in :math:`\theta` is, up to sign, :math:`2 \theta^{k-1} / (k-1)!`
times the Taylor polynomial of cosine (k even) or sine (k odd) below degree k - 1. The sign depends
on k modulo 4: for remainders 2 and 3 the series stretches from the start, by about
:math:`1 + \theta^k / k!` for k = 2, 6, 10 and less for k = 3, 7, 11. For 0 and 1 it shrinks first,
and stretches nothing at all up to a norm of 1.73, 1.76, 1.70 for k = 4, 8, 12 and of 2.82, 3.39,
3.37 for k = 5, 9, 13. (In numerical analysis these are the stability limits of Taylor methods on
the imaginary axis.)
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

_TOLERANCE = Fraction(1, 10**12)  # relative, of the square


def truncated_exponential(norm: Tensor | float, terms: int) -> Tensor:
    """Proved bound of ``|sum_{j < terms} A^j / j!|`` over all skew A with ``|A| <= norm``.

    Bound: never below the largest value; within 1e-12 of it, relative, and attained by a 2 x 2
    matrix up to that.
    Cost: ``terms^2`` exact fractions, milliseconds; some ten times that where the largest value is
    not taken at either end.

    Args:
        norm: of A, or a bound of it.
        terms: of the series, counting the identity.

    Returns:
        A 0-d float64 tensor; infinite if the norm is, or the value is out of range.

    Raises:
        ValueError: a norm that is negative or NaN, or fewer terms than 1.

    Example:
        >>> truncated_exponential(1.0, terms=6)
        tensor(1.0009, dtype=torch.float64)
        >>> truncated_exponential(2.8, terms=5)
        tensor(1., dtype=torch.float64)
    """
    size = float(norm)
    if not size >= 0 or terms < 1:
        raise ValueError(f"norm >= 0 and terms >= 1 are needed, got {size} and {terms}")
    value = math.inf
    if math.isfinite(size):
        value = _root_above(_largest(_bernstein(squared_modulus(terms), Fraction(size) ** 2)))
    return torch.tensor(value, dtype=torch.float64)


def squared_modulus(terms: int) -> list[Fraction]:
    """Coefficients of ``|sum_{j < terms} (i theta)^j / j!|^2`` by powers of ``theta^2``."""
    return [
        sum(
            (
                Fraction((-1) ** (m + j), math.factorial(j) * math.factorial(2 * m - j))
                for j in range(max(0, 2 * m - terms + 1), min(2 * m, terms - 1) + 1)
            ),
            Fraction(0),
        )
        for m in range(terms)
    ]


def _bernstein(coefficients: Sequence[Fraction], end: Fraction) -> list[Fraction]:
    """Bernstein coefficients on ``[0, end]``; the first and the last are the values there."""
    degree = len(coefficients) - 1
    scaled = [c * end**i / math.comb(degree, i) for i, c in enumerate(coefficients)]
    return [
        sum((math.comb(j, i) * scaled[i] for i in range(j + 1)), Fraction(0))
        for j in range(degree + 1)
    ]


def _largest(bernstein: list[Fraction]) -> Fraction:
    """Bound of the largest value of a positive polynomial on its interval."""
    bound, pending = Fraction(0), [bernstein]
    reached = max(bernstein[0], bernstein[-1])
    while pending:
        part = pending.pop()
        reached = max(reached, part[0], part[-1])
        above = max(part)  # on its interval the polynomial lies below this coefficient
        if above <= reached * (1 + _TOLERANCE):
            bound = max(bound, above)
        else:
            pending += _halves(part)
    return bound


def _halves(bernstein: list[Fraction]) -> list[list[Fraction]]:
    """Bernstein coefficients on the two halves of the interval (de Casteljau)."""
    rows = [bernstein]
    while len(rows[-1]) > 1:
        rows.append([(a + b) / 2 for a, b in pairwise(rows[-1])])
    return [[row[0] for row in rows], [row[-1] for row in reversed(rows)]]


def _root_above(square: Fraction) -> float:
    """A float not below the root, by at most a unit in the last place too much."""
    try:
        value = math.sqrt(square)
    except OverflowError:
        return math.inf
    while Fraction(value) ** 2 < square:
        value = math.nextafter(value, math.inf)
    return value
