"""Quadratic forms of multipliers in fractions."""

from fractions import Fraction
from typing import Any

import numpy as np

Array = Any


def exactly_positive(
    weights: list[Array], slopes: list[Array], multipliers: list[Array], bound: float
) -> bool:
    """Whether a form is positive, by fractions; also with multipliers larger by 2^-20 or 2^-11."""

    def holds(up: Fraction) -> bool:
        sizes = [w.shape[1] for w in weights]
        ends = np.cumsum([0, *sizes]).tolist()
        m = [[Fraction(0)] * ends[-1] for _ in range(ends[-1])]
        for i in range(sizes[0]):
            m[i][i] = (Fraction(bound) * up) ** 2
        for k, w in enumerate(weights):
            rows = [[Fraction(float(x)) for x in row] for row in w]
            for r, row in enumerate(rows):
                if k + 1 == len(weights):
                    t, s, inside = Fraction(0), Fraction(0), Fraction(-1)
                else:
                    t = Fraction(float(multipliers[k][r])) * up
                    s = Fraction(float(np.broadcast_to(slopes[k], len(w))[r]))
                    inside = 2 * s * t
                    place = ends[k + 1] + r
                    m[place][place] += 2 * t
                    for j, x in enumerate(row):
                        m[place][ends[k] + j] -= (1 + s) * t * x
                        m[ends[k] + j][place] = m[place][ends[k] + j]
                for i, x in enumerate(row):
                    if x and inside:
                        for j, y in enumerate(row):
                            m[ends[k] + i][ends[k] + j] += inside * x * y
        return _eliminated(m)

    return holds(Fraction(1)) or holds(1 + Fraction(1, 2**20)) or holds(1 + Fraction(1, 2**11))


def _eliminated(m: list[list[Fraction]]) -> bool:
    for k, row in enumerate(m):
        if row[k] < 0:
            return False
        for other in m[k + 1 :]:
            if other[k]:
                if row[k] == 0:
                    return False
                q = other[k] / row[k]
                for j in range(k + 1, len(m)):
                    other[j] -= q * row[j]
    return True
