"""Radii in front of a head with one hidden layer, by its curvature (Singla, Feizi, 2022).

For the difference f of two outputs of ``V phi(U z + b) + c``, with d that of two rows of V and
second derivatives of phi between s and t, the Hessian lies above ``-N I`` if N is at least the
squared norm of ``diag(a) U``, ``a_k^2 >= max(-d_k s, -d_k t, 0)``. So f is positive wherever
``f(z) - |g| p - N p^2 / 2`` is, p the distance from z and g the gradient there. A body with the
constant L moves the features by at most ``p = L r``.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

SHORT, CUT, RESULT = 20, 20, 50  # bits of a; that U loses; after the point of derivatives
FAR = 1000
BENDS = {
    "softplus": (Fraction(0), Fraction(1, 4)),
    "tanh": (Fraction(-77, 100), Fraction(77, 100)),
    "sigmoid": (Fraction(-97, 1000), Fraction(97, 1000)),
}
"""Second derivatives."""


def register(check: Any) -> None:
    """Add the head."""
    check.HEADS["curvature"] = lambda network, head: by_curvature(check, network, head)


def derivative(check: Any, kind: str, u: int) -> int:
    """First derivative of an activation, in units of 2^-80, within 2^-62."""
    smooth = check.KINDS["smooth"]
    value = smooth.tanh(u) if kind == "tanh" else smooth.sigmoid(u)
    if kind == "softplus":
        return int(value)
    square = value * value >> smooth.POINT
    return int(smooth.ONE - square if kind == "tanh" else value - square)


def by_curvature(check: Any, network: Any, head: Any) -> Callable[..., str]:
    """Show radii by parabolas; the reason if one is too large."""
    dense = check.MAPS["dense"]
    _, name = check.fields(head, "kind", "bends")
    check.need(network.parts and len(network.last) == 1, "a head of two matrices is asked")
    (maps, record, _, plain, *_), outer = network.parts[-1], network.last[0]
    kind = record["kind"]
    fits = plain and len(maps) == 1 and type(maps[0]) is dense and type(outer) is dense
    check.need(fits and kind in BENDS, "a head of two matrices and a smooth activation is asked")
    inner, classes = maps[0], outer.outputs[0]
    bends = network.tensors.get(name, axes=2)
    fits = bends.shape == (classes, classes) and bool(((bends >= 0) & (bends < np.inf)).all())
    check.need(fits, "bends for each pair of outputs are asked")
    body = Fraction(1)
    for part in network.parts[:-1]:
        body = check.upwards(body * part[4])
    shown: set[tuple[int, int]] = set()

    def bend(own: int, rival: int) -> Fraction:
        """A number N of a pair, which is shown when it is asked for first."""
        n = Fraction(float(bends[own, rival]))
        if (own, rival) not in shown:
            show_bend(check, (inner.weight, outer.weight), (own, rival), BENDS[kind], n)
            shown.add((own, rival))
        return n

    back = inner.adjoint()
    steepest = max(abs(end) for end in BENDS[kind])

    def judged(x: Any, predicted: Any, claims: Any) -> str:
        features = check.through(network.blocks[:-1], x)
        centre = replace(features, error=check.ZERO)
        hidden = inner(centre)
        values = outer(network.blocks[-1](centre))
        unit, slack = check.two(values.exponent), check.root(Fraction(2)) * values.error
        check.spend(hidden.ints.size << 16)
        check.spend(len(predicted) * classes * inner.weight.ints.size << 4)
        slopes = slopes_of(check, kind, hidden)
        # the distance of the derivatives to the true ones
        count = check.root(Fraction(hidden.ints[0].size))
        off = check.upwards(steepest * hidden.error + 2 * check.two(-RESULT) * count)
        for at, (own, claim) in enumerate(zip(predicted, claims, strict=True)):
            p = body * claim + features.error
            for rival in set(range(classes)) - {own} if claim else ():
                margin = int(values.ints[at, own] - values.ints[at, rival]) * unit - slack
                d = outer.weight.ints[own] - outer.weight.ints[rival]
                rows = check.Grid.rounded([d[None]], outer.weight.exponent, 2 * outer.weight.error)
                g = back.image(rows.times(check.Grid(slopes[at][None], -RESULT, off), check.ONE))
                if not margin > size(check, g) * p + bend(own, rival) * p * p / 2:
                    return f"{at}: the radius against {rival} is smaller than claimed"
        return ""

    return judged


def size(check: Any, x: Any) -> Fraction:
    """Upper bound of the length of a single sample."""
    square = sum(int(n) ** 2 for n in x.ints.reshape(-1))
    length: Fraction = check.root(Fraction(square)) * check.two(x.exponent) + x.error
    return length


def slopes_of(check: Any, kind: str, hidden: Any) -> Any:
    """First derivatives at the hidden numbers, in units of 2^-50, each within two of them."""
    point = check.KINDS["smooth"].POINT
    shift, limit = point + hidden.exponent, 1 << (point + 10)
    flat = hidden.ints.reshape(-1).tolist()
    if shift > FAR:  # any number but 0 is where derivatives are those of infinity
        flat = [(n > 0) * limit - (n < 0) * limit for n in flat]
    else:
        flat = [n << shift if shift >= 0 else n >> -shift for n in flat]
    found = [derivative(check, kind, max(-limit, min(n, limit))) >> (point - RESULT) for n in flat]
    return np.array(found, np.int64).reshape(hidden.ints.shape)


def show_bend(check: Any, head: tuple[Any, Any], pair: tuple[int, int], ends: Any, n: Any) -> None:
    """Show that N is above the curvature of a difference of two outputs."""
    inner, outer = head
    d, unit = outer.ints[pair[0]] - outer.ints[pair[1]], check.two(outer.exponent)
    more = 2 * outer.error * max(map(abs, ends))
    curved = [max(*(-int(k) * unit * end for end in ends), Fraction(0)) + more for k in d]
    roots = [check.root(k) for k in curved]
    largest = max(roots)
    if largest == 0:
        return
    bits = largest.numerator.bit_length() - largest.denominator.bit_length() + 1
    scale = check.two(bits - SHORT)
    a = np.array([-int(-root // scale) for root in roots], np.int64)  # rounded up, at most 2^20
    u = (inner.ints + (1 << CUT >> 1)) >> CUT
    lost = check.two(inner.exponent + CUT) * check.root(Fraction(u.size)) + inner.error
    norm = check.root(n) * (1 - check.two(-60)) - lost * 2 * largest
    check.need(norm > 0, check.TOO_LARGE)
    measure = scale * check.two(inner.exponent + CUT)
    check.bounded(a[:, None] * u, (norm / measure) ** 2)
