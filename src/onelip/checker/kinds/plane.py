"""Pairs of channels as points of a plane: folds, and distances to curves, all 1-Lipschitz.

A point of length R at the angle phi goes to R at the angle ``g(phi)``, the highest of the tents
``p - d(phi, r)``, d the distance on the circle: g is 1-Lipschitz there, so the map is in the plane.
The distance to a set is 1-Lipschitz, and so is one with a sign that tells two sides of it apart.
Cosines and sines of angles have 120 bits after the point, angles of points 80.
"""

import functools
import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

FINE, POINT, WHOLE = 120, 80, 256  # bits after the point of cosines, of angles, and of pi
LONG = 160  # of the series of cosines: 60 terms for angles up to pi
FAR = 1 << 10  # largest angle
BITS = 40  # of corners, on one grid with points
PART = 1 << 16  # points that are looked at together

roots: Any = np.frompyfunc(math.isqrt, 1, 1)


def register(check: Any) -> None:
    """Add the three activations."""
    check.ACTIVATIONS["fold"] = (partial(fold, check), "rays", "peaks")
    check.ACTIVATIONS["rays"] = (partial(rays, check), "angles")
    check.ACTIVATIONS["polygon"] = (partial(polygon, check), "corners")


def angles(check: Any, tensors: Any, name: Any, axes: int, pairs: int) -> Any:
    """Cosines and sines of angles, and the angles: ``(3, ..., pairs, 1)``."""
    a = tensors.get(name, axes=axes)
    check.need(2 * a.shape[-1] == pairs, f"tensor {name[:40]}: one angle a pair is asked")
    check.need((np.abs(a) <= FAR).all(), f"tensor {name[:40]}: an angle is too large")
    check.spend(a.size << 20)
    exact = [Fraction(float(angle)) for angle in a.reshape(-1)]
    turns = [cosine_and_sine(angle, check.KINDS["gated"].PI) for angle in exact]
    fine = [math.floor(angle * (1 << POINT)) for angle in exact]
    numbers = np.array([[c, s, t] for (c, s), t in zip(turns, fine, strict=True)], object)
    return numbers.T.reshape(3, *a.shape, 1)


def cosine_and_sine(angle: Fraction, pi: int) -> tuple[int, int]:
    """Cosine and sine with 120 bits after the point, within 2^-110."""
    one, pi = 1 << LONG, pi >> WHOLE - LONG
    t = math.floor(angle * one) % (2 * pi)
    t -= 2 * pi * (t > pi)
    terms = [one]
    for k in range(1, 60):
        terms.append(terms[-1] * t // (one * k))
    cosine, sine = (sum(terms[i::4]) - sum(terms[i + 2 :: 4]) for i in (0, 1))
    return cosine >> LONG - FINE, sine >> LONG - FINE


def angle_of(y: int, x: int, pi: int) -> int:
    """Angle of the point (x, y), y >= 0, with 80 bits after the point, within 2^-70; 0 for 0."""
    if y == 0 and x >= 0:
        return 0
    one, steep = 1 << POINT, y > abs(x)
    t = (min(y, abs(x)) << POINT) // max(y, abs(x))
    for _ in range(3):  # half of the angle
        t = (t << POINT) // (one + math.isqrt(one * one + t * t))
    square, power, total = t * t >> POINT, t, t
    for k in range(3, 31, 2):
        power = -(power * square >> POINT)
        total += power // k
    pi >>= WHOLE - POINT
    total = (pi >> 1) - 8 * total if steep else 8 * total
    return pi - total if x < 0 else total


def placed(x: Any, channels: int, function: Any) -> Any:
    """Apply a function to parts of points ``(2, pairs, places)``; it is told which pairs."""
    flat = x.ints.reshape(len(x.ints), 2, -1, math.prod(x.ints.shape[2:]))
    _, _, pairs, places = flat.shape
    found = np.zeros((len(flat), channels, pairs, places), np.int64)
    step, wide = max(1, PART // places), min(PART, places)
    for sample, first, start in itertools.product(
        range(len(flat)), range(0, pairs, step), range(0, places, wide)
    ):
        some, there = slice(first, first + step), slice(start, start + wide)
        found[sample, :, some, there] = function(flat[sample, :, some, there].astype(object), some)
    return found


def finished(check: Any, x: Any, ints: Any, shape: Any, more: Any) -> Any:
    """Numbers that are off by a unit, and what else they may be off by, as a batch."""
    y = replace(x, ints=ints.reshape(-1, *shape), error=check.ZERO).off(102)
    y = check.Grid.rounded([y.ints], y.exponent, y.error)
    return replace(y, error=check.upwards(y.error + more + x.error))


def fold(check: Any, tensors: Any, inputs: Any, *names: Any) -> Any:
    """Folds of neighbouring channels along rays, turned to peaks."""
    r, p = (angles(check, tensors, name, 2, inputs[0]) for name in names)
    count, pi = r.shape[1], check.KINDS["gated"].PI
    check.need(r.shape == p.shape, "as many rays as peaks are asked")
    around: Any = np.frompyfunc(lambda y, x: angle_of(y, x, pi), 2, 1)

    def folded(point: Any, some: slice) -> Any:
        x, y = point
        best, highest = None, None
        for k in range(count):
            (c, s, _), (d, e, peak) = r[:, k, some], p[:, k, some]
            dot, across = c * x + s * y, abs(s * x - c * y)
            image = np.stack([d * dot + e * across, e * dot - d * across]) >> 2 * FINE
            if count == 1:
                return image
            tall = peak - around(across, dot)
            best = image if best is None else np.where(tall > highest, image, best)
            highest = tall if highest is None else np.maximum(tall, highest)
        return best

    def apply(x: Any) -> Any:
        check.spend(x.ints.size * count << (15 if count > 1 else 11))
        batch, rest = len(x.ints), inputs[1:]
        turned = x.ints.reshape(batch, -1, 2, *rest).swapaxes(1, 2)
        ints = placed(replace(x, ints=turned.reshape(batch, *inputs)), 2, folded)
        ints = ints.reshape(batch, 2, -1, *rest).swapaxes(1, 2)
        # a tent that is as high up to 2^-69 leads as near
        return finished(check, x, ints, inputs, x.length() * check.two(-68))

    return check.Activation(-check.ONE, check.ONE, inputs, apply)


def rays(check: Any, tensors: Any, inputs: Any, name: Any) -> Any:
    """Signed distance of channels i and i + pairs to two rays from 0."""
    c, s, _ = angles(check, tensors, name, 1, inputs[0])
    s, shape = abs(s), (inputs[0] // 2, *inputs[1:])
    check.need((c != 0).all(), "an angle is too near to a right one")

    def distance(point: Any, some: slice) -> Any:
        x, y = point[0], abs(point[1])
        cos, sin = c[some], s[some]
        far = roots(x * x + y * y) * np.where(cos > 0, 1, -1)
        return np.where(cos * x + sin * y < 0, far, (cos * y - sin * x) >> FINE)

    def apply(x: Any) -> Any:
        check.spend(x.ints.size << 12)
        return finished(check, x, placed(x, 1, distance), shape, check.ZERO)

    return check.Activation(-check.ONE, check.ONE, shape, apply)


def polygon(check: Any, tensors: Any, inputs: Any, name: Any) -> Any:
    """Distance of channels i and i + pairs to the segments between corners."""
    corners = tensors.get(name, axes=3)
    count, fits = len(corners), corners.shape[1] == 2 and 2 * corners.shape[2] == inputs[0]
    check.need(fits, f"tensor {name[:40]}: corners of each pair are asked")
    grid, shape = check.Grid.of(corners), (inputs[0] // 2, *inputs[1:])
    entries = check.root(Fraction(2 * math.prod(shape)))

    def apply(x: Any) -> Any:
        check.spend(x.ints.size * count << 13)
        exponent = max(x.exponent, grid.exponent + check.WEIGHT - BITS)
        at, moved = x.on(exponent), grid.on(exponent).ints

        def distance(point: Any, some: slice) -> Any:
            ends = moved[:, :, some, None].astype(object)
            squares = [squared(point, *pair) for pair in itertools.pairwise(ends)]
            squares = squares or [squared(point, ends[0], ends[0])]
            return roots(functools.reduce(np.minimum, squares))

        # the distance changes by at most as much as corners move
        same = (moved << min(exponent - grid.exponent, 60) == grid.ints).all()
        lost = grid.error + (check.ZERO if same else check.two(exponent))
        return finished(check, at, placed(at, 1, distance), shape, lost * entries)

    return check.Activation(-check.ONE, check.ONE, shape, apply)


def squared(point: Any, start: Any, end: Any) -> Any:
    """Squared distance to a segment, rounded down."""
    (x, y), (u, v) = point - start, end - start
    size, dot = u * u + v * v, x * u + y * v
    beyond = (point[0] - end[0]) ** 2 + (point[1] - end[1]) ** 2
    across = (x * v - y * u) ** 2 // np.maximum(size, 1)
    return np.where(dot <= 0, x * x + y * y, np.where(dot >= size, beyond, across))
