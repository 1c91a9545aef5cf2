"""Activations in pieces whose slopes are constant, or grow evenly.

With knots ``k_1 <= ... <= k_n`` and the value v at the first,

    f(x) = v + s_0 min(x - k_1, 0) + sum g_i(t_i) + s_n max(x - k_n, 0),
    t_i = min(max(x, k_i), k_(i+1)) - k_i,  g_i(t) = s_i t + b_i t^2 / 2,

which is continuous whatever the numbers. Knots that are moved by d in order move each t_i by at
most 2 d.
"""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

MOST, BITS = 1 << 12, 40  # knots, and their bits on one grid with numbers
PART = 1 << 16  # slopes that are looked at together


def register(check: Any) -> None:
    """Add the activation: ``{"kind": "piecewise", "knots", "slopes", "bends", "value"}``."""
    names = "knots", "slopes", "bends", "value"
    check.ACTIVATIONS["piecewise"] = (partial(piecewise, check), *names)


def piecewise(check: Any, tensors: Any, inputs: Any, *names: Any) -> Any:
    """An activation by its knots, slopes, bends (or null) and first value."""
    knots, slopes, value = *map(tensors.get, names[:2]), tensors.get(names[3], onto=inputs)
    bends = None if names[2] is None else tensors.get(names[2])
    count, shape = knots.shape[0] if knots.ndim else 0, value.shape
    fits = 0 < count <= MOST and knots.shape == (count, *shape)
    fits = fits and slopes.shape == (count + 1, *shape)
    fits = fits and (bends is None or bends.shape == (count - 1, *shape))
    check.need(fits, "knots, slopes and bends that do not fit each other")
    check.need((np.diff(knots, axis=0) >= 0).all(), "knots that are not in order")
    aligned = (1,) * (len(inputs) - len(shape)) + shape
    k, s = (check.Grid.of(a.reshape(len(a), *aligned)) for a in (knots, slopes))
    b = None if bends is None else check.Grid.of(bends.reshape(len(bends), *aligned))
    low, high = between(check, k, s, b)
    most, entries = max(high, -low), check.root(Fraction(math.prod(inputs)))
    start = check.Grid.of(value.reshape(1, *aligned), check.VALUE)
    ints = np.broadcast_to(start.ints, (1, *inputs))
    start = replace(start, ints=ints, error=start.error * entries)

    def apply(x: Any) -> Any:
        check.spend(x.ints.size * count << 8)
        exponent = max(x.exponent, k.exponent + check.WEIGHT - BITS)
        at, moved = x.on(exponent), k.on(exponent).ints
        same = (moved << min(exponent - k.exponent, 60) == k.ints).all()
        lost = k.error + (check.ZERO if same else check.two(exponent))
        places, outside = moved[:, None], replace(at, error=check.ZERO)

        def part(t: Any, i: int) -> Any:
            t = replace(outside, ints=t)
            return t.times(replace(s, ints=s.ints[None, i]), most)

        y = part(np.minimum(at.ints - places[0], 0), 0)
        y = y.plus(part(np.maximum(at.ints - places[-1], 0), count))
        for i in range(count - 1):
            t = np.clip(at.ints, places[i], places[i + 1]) - places[i]
            y = y.plus(part(t, i + 1))
            if b is not None:
                y = y.plus(bent(check, replace(outside, ints=t), replace(b, ints=b.ints[None, i])))
        # slopes at what the moved knots let in, which may lie beyond the ends of a piece
        steep = most + (check.ZERO if b is None else 2 * lost * largest(check, b))
        y = y.plus(start)
        error = y.error + 2 * count * steep * lost * entries + most * at.error
        return replace(y, error=check.upwards(error))

    return check.Activation(low, high, inputs, apply)


def largest(check: Any, grid: Any) -> Any:
    """Largest absolute value of numbers."""
    return int(np.abs(grid.ints).max()) * check.two(grid.exponent) + grid.error


def bent(check: Any, t: Any, bend: Any) -> Any:
    """``bend t^2 / 2`` for exact t."""
    parts = check.carried([t.ints])
    levels = [np.zeros_like(t.ints) for _ in range(2 * len(parts) - 1)]
    for i, x in enumerate(parts):
        for j, y in enumerate(parts):
            levels[i + j] = levels[i + j] + x * y
    square = check.Grid.rounded(levels, 2 * t.exponent - 1, check.ZERO)
    return square.times(bend, largest(check, bend))


def between(check: Any, k: Any, s: Any, b: Any) -> Any:
    """The least and the largest slope at the ends of pieces."""
    low, high = (int(end) * check.two(s.exponent) for end in (s.ints.min(), s.ints.max()))
    if b is None:
        return low - s.error, high + s.error
    check.spend(b.ints.size << 14)
    wide = np.diff(k.ints, axis=0)
    apart = b.exponent + k.exponent
    exponent = min(s.exponent, apart)
    flat = [part.reshape(-1) for part in (s.ints[1:-1], b.ints, wide)]
    for first in range(0, b.ints.size, PART):
        start, bend, width = (part[first : first + PART].astype(object) for part in flat)
        more = bend * width * (1 << (apart - exponent))
        ends = start * (1 << (s.exponent - exponent)) + more
        low = min(low, int(ends.min()) * check.two(exponent))
        high = max(high, int(ends.max()) * check.two(exponent))
    off = s.error + b.error * int(wide.max()) * check.two(k.exponent)
    off += 2 * k.error * (largest(check, b) + b.error)
    return low - off, high + off
