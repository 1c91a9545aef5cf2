"""Norms of convolutions of images that are too large to be written out as a matrix.

* ``"torus"``: the convolution is that of images on a torus, with some outputs left out, and with
  zeros around a smaller image: its norm is at most the largest over the frequencies of the torus.
  The pixels of a stride's cell are channels. Roots of unity are enclosed.
* ``"kernel"``: the norm of the kernel as one matrix, times the root of how often a pixel is seen.
"""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

ROOTS = 54  # bits of roots of unity


def register(check: Any) -> None:
    """Add the two witnesses."""
    check.WITNESSES["torus"] = lambda linear: on_torus(check, linear)
    check.WITNESSES["kernel"] = lambda linear: as_matrix(check, linear)


def circles(check: Any, linear: Any) -> Iterator[tuple[int, int, Any]]:
    """For each axis a circle, the stride, and where each tap looks from pixel 0."""
    sides = zip(linear.inputs[1:], linear.outputs[1:], linear.stride, strict=True)
    taps = zip(linear.padding, linear.dilation, linear.weight.ints.shape[2:], strict=True)
    for (n, m, s), (p, d, k) in zip(sides, taps, strict=True):
        closed = not linear.circular or (n % s == 0 and m * s <= n)
        check.need(closed, "circular padding and a stride that does not divide the image")
        around = n if linear.circular else max(n + p, m * s)
        yield -(-around // s) * s, s, np.arange(k) * d - p


def as_matrix(check: Any, linear: Any) -> str:
    """Bound the norm by that of the kernel."""
    seen = [int(np.bincount(looks % s).max()) for _, s, looks in circles(check, linear)]
    check.bounded(linear.kernel, linear.most(linear.error) / math.prod(seen))
    return "kernel as a matrix"


def on_torus(check: Any, linear: Any) -> str:
    """Bound the norm frequency by frequency."""
    (rows, s, down), (columns, t, across) = circles(check, linear)
    height, width, (g, c, _) = rows // s, columns // t, linear.kernel.shape
    ints, taps = linear.weight.ints, sorted({(i, j) for i in down // s for j in across // t})
    fits = len(taps) * s * t <= max(
        16 * math.prod(ints.shape[2:]), check.AT_ONCE // ints[:, :, 0, 0].size
    )
    check.need(fits, "a stride is too large")
    each, place = ints.shape[1], {tap: at for at, tap in enumerate(taps)}
    cells = np.zeros((len(taps), g, c, each, s, t), np.int64)
    for (i, u), (j, v) in itertools.product(enumerate(down), enumerate(across)):
        cells[place[u // s, v // t], ..., u % s, v % t] += ints[..., i, j].reshape(g, c, each)
    flat, period = check.digits(cells.reshape(len(taps), -1)), math.lcm(height, width)
    check.need(period <= 1 << 16 and height * width <= 1 << 20, "a torus is too large")
    check.spend((period << 14) + (height * width << 13))
    table = roots_of_unity(period)
    half = [
        (a, b)
        for a, b in itertools.product(range(height), range(width))
        if (a, b) <= (-a % height, -b % width)  # the other half is conjugate
    ]
    entries = g * c * each * s * t
    step = max(1, check.AT_ONCE // (4 * entries + len(taps)))
    # what the roots may be off, times the norms of the taps
    size = check.two(1 - ROOTS) * check.root(Fraction(len(taps) * ints.size))
    off = linear.error + size * int(np.abs(ints).max()) * check.two(linear.weight.exponent)
    for first in range(0, len(half), step):
        at = np.array(half[first : first + step]) * [period // height, period // width]
        phases = at @ np.array(taps).T % period
        sums = [check.product(check.digits(part[phases]), flat) for part in table]
        parts = [check.shortened(levels, 52) for levels in sums]
        exponent = max(e for _, e in parts)
        shape = -1, g, c, each * s * t
        real, imaginary = ((x >> (exponent - e)).reshape(shape) for x, e in parts)
        matrix = np.block([[real, -imaginary], [imaginary, real]])
        # three units: rounded by up to 1.02, and shifted
        units = 3 * check.root(Fraction(2 * c * each * s * t))
        scale = check.two(exponent - ROOTS)
        error = off + units * scale * check.two(linear.weight.exponent)
        check.bounded(matrix, linear.most(error) / scale**2)
    return f"{len(half)} frequencies"


def roots_of_unity(count: int) -> tuple[Any, Any]:
    """Cosines and sines of all multiples of ``2 pi / count``, times 2^54, rounded down."""
    bits = 160
    one = 1 << bits

    def arctan(n: int) -> int:  # of 1 / n; each term is rounded
        return sum((-1) ** k * (one // n ** (2 * k + 1) // (2 * k + 1)) for k in range(120))

    angle = 8 * (4 * arctan(5) - arctan(239)) // count  # 2 pi, by Machin's formula
    terms = [one]
    for k in range(1, 80):
        terms.append(terms[-1] * angle // one // k)
    cosine, sine = sum(terms[::4]) - sum(terms[2::4]), sum(terms[1::4]) - sum(terms[3::4])
    x, y, table = one, 0, []
    for _ in range(count):  # a turn loses a few units of 2^-160; there are at most 2^16
        table.append((x >> (bits - ROOTS), y >> (bits - ROOTS)))
        x, y = (x * cosine - y * sine) // one, (x * sine + y * cosine) // one
    return np.array([c for c, _ in table]), np.array([s for _, s in table])
