"""Truncated exponentials of skew convolutions, and adjoints of convolutions.

The eigenvalues of a skew map A with ``|A| <= c`` are ``iy`` with ``|y| <= c``, so the sum of
``A^k / k!`` for k < n has the norm ``max |p(y)|``, ``p(y) = sum (iy)^k / k!``. Whether ``|p|^2``, a
polynomial in ``u = y^2``, stays below a number on ``[0, c^2]`` is seen from its coefficients in the
Bernstein basis, after halving the interval where they do not show it.
"""

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

HALVINGS = 12


def register(check: Any) -> None:
    """Add the two maps."""
    convolution = check.MAPS["convolution"]

    class Exponential(check.Linear):  # type: ignore[misc]
        """``{"map": "exponential", "norm", "of": a skew convolution, "terms": n}``."""

        names = "of", "terms"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take the convolution, and the number of terms."""
            check.known({"convolution"}, values[0], "map")
            self.of = convolution(values[0], tensors, self.inputs)
            self.size = self.of.size
            self.terms, weight = check.whole(values[1], 1, 64), tensors.get(values[0]["weight"])
            square = self.of.outputs == self.inputs and self.of.groups == 1
            kernel = zip(weight.shape[2:], self.of.padding, self.of.dilation, strict=True)
            centred = all(k % 2 and 2 * p == d * (k - 1) for k, p, d in kernel)
            plain = square and centred and self.of.stride == (1, 1) and self.of.shift is None
            check.need(plain, "the exponential of a convolution that is no square map")
            mirrored = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
            check.need((weight == -mirrored).all(), "a kernel that is not skew")

        def check(self) -> str:
            """Look at the polynomial."""
            how = self.of.check()
            check.spend(self.terms**3 << 15)
            square = polynomial(self.terms)
            square[0] -= self.norm**2
            # more of the axis, so that powers of the end are no longer than they have to be
            end = check.upwards(max(self.of.norm**2, check.two(-64)))
            check.need(negative(square, end), check.TOO_LARGE)
            return f"{self.terms} terms of norm <= {float(self.of.norm):.6g}, {how}"

        def image(self, x: Any) -> Any:
            """Horner's rule, ``u = x + A u / i``."""
            centre = replace(x, error=check.ZERO)
            u = centre
            for i in range(self.terms - 1, 0, -1):
                image = self.of(u)
                ints = (2 * image.ints + i) // (2 * i)
                u = centre.plus(replace(image, ints=ints, error=image.error / i).off(50))
            return replace(u, error=check.upwards(u.error + self.norm * x.error))

    class Adjoint(check.Linear):  # type: ignore[misc]
        """``{"map": "adjoint", "norm", "of": a convolution, "inputs": shape, "bias"}``."""

        names = "of", "inputs", "bias"

        def read(self, tensors: Any, *values: Any) -> None:
            """Take the convolution, what goes into it, and the bias."""
            record, shape, bias = values
            check.known({"convolution"}, record, "map")
            self.outputs = check.shape_of(shape)
            self.of = convolution(record, tensors, self.outputs)
            self.size = self.of.size
            fits = self.of.outputs == self.inputs and self.of.shift is None
            check.need(fits, f"the adjoint of a convolution to {self.of.outputs}")
            self.shifted(tensors, bias)

        def check(self) -> str:
            """Look at the convolution."""
            how = self.of.check()
            check.need(self.norm >= self.of.norm, check.TOO_LARGE)
            return str(how)

        def image(self, x: Any) -> Any:
            """Multiply, and add up where patches were taken."""
            of, batch, (_, *size) = self.of, len(x.ints), self.inputs
            rows = x.ints.reshape(batch, of.groups, -1, *size).transpose(1, 0, 3, 4, 2)
            rows = rows.reshape(of.groups, batch * math.prod(size), -1)
            levels = check.product(check.digits(rows), check.digits(of.kernel))
            check.need(math.prod(of.weight.ints.shape[2:]) <= 256, "a kernel with too many taps")
            images = [folded(check, of, batch, level) for level in check.carried(levels)]
            error = self.norm * x.error + of.error * x.length()
            return check.Grid.rounded(images, x.exponent + of.weight.exponent, error)

    check.MAPS.update(exponential=Exponential, adjoint=Adjoint)


def folded(check: Any, of: Any, batch: int, level: Any) -> Any:
    """Patches of a convolution, ``(groups, batch height width, inputs k k)``, added up."""
    (channels, *sides), (_, *size), taps = of.inputs, of.outputs, of.weight.ints.shape[2:]
    check.spend(level.size << 8)
    level = level.reshape(of.groups, batch, *size, -1, *taps).transpose(1, 0, 4, 5, 6, 2, 3)
    level = level.reshape(batch, channels, *taps, *size)
    axes = zip(sides, of.padding, of.dilation, taps, of.stride, size, strict=True)
    places = []
    for n, p, d, k, s, m in axes:  # for each tap and output, the pixel; n for one outside
        look = np.arange(k)[:, None] * d - p + s * np.arange(m)
        places.append(look % n if of.circular else np.where((look < 0) | (look >= n), n, look))
    image = np.zeros((batch, channels, sides[0] + 1, sides[1] + 1), np.int64)
    for i, j in itertools.product(*map(range, taps)):
        at = np.ix_(range(batch), range(channels), places[0][i], places[1][j])
        np.add.at(image, at, level[:, :, i, j])
    return image[..., :-1, :-1]


def polynomial(terms: int) -> list[Fraction]:
    """Coefficients of ``|sum (iy)^k / k!|^2`` in ``u = y^2``."""
    real: list[Fraction] = []
    odd: list[Fraction] = []  # the sum is real(u) + i y odd(u)
    for k in range(terms):
        (odd if k % 2 else real).append(Fraction((-1) ** (k // 2), math.factorial(k)))
    total = [Fraction(0)] * (2 * terms)
    for part, shift in ((real, 0), (odd, 1)):
        for (i, a), (j, b) in itertools.product(enumerate(part), enumerate(part)):
            total[i + j + shift] += a * b
    return total


def negative(coefficients: list[Fraction], end: Fraction) -> bool:
    """Whether a polynomial is shown to be at most 0 on ``[0, end]``."""
    value = Fraction(0)
    for a in reversed(coefficients):
        value = value * end + a
    if value > 0:  # the usual case of an end that is far too large
        return False
    count, power = len(coefficients) - 1, Fraction(1)
    scaled = []
    for a in coefficients:
        scaled.append(a * power)
        power *= end
    bernstein = [
        sum(scaled[j] * Fraction(math.comb(i, j), math.comb(count, j)) for j in range(i + 1))
        for i in range(count + 1)
    ]
    return all_negative(list(map(Fraction, bernstein)), HALVINGS)


def all_negative(bernstein: list[Fraction], halvings: int) -> bool:
    """Whether Bernstein coefficients are at most 0, here or on both halves."""
    if max(bernstein) <= 0:
        return True
    if not halvings or bernstein[0] > 0 or bernstein[-1] > 0:
        return False
    left, right, row = [], [], bernstein
    while row:
        left.append(row[0])
        right.append(row[-1])
        row = [(a + b) / 2 for a, b in itertools.pairwise(row)]
    return all_negative(left, halvings - 1) and all_negative(right[::-1], halvings - 1)
