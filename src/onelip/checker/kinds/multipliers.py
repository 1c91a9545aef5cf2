"""Constants of plain dense networks by quadratic multipliers (LipSDP, Fazlyab et al., 2019).

For the differences ``d_k`` of two runs after layer k, slopes between a and b, and any diagonal
``T >= 0``, ``(d_k - a W d_{k-1})^T T (b W d_{k-1} - d_k) >= 0``. Where ``c^2 |d_0|^2`` less
``|W_L d_{L-1}|^2`` and twice all these is a quadratic form without negative values, c is a
Lipschitz constant. The form is a matrix M of integers on a grid. ``M >= 0`` is shown by
``S M S = m I + L L^T + R`` and ``|R| <= m``, for powers of two S and a Cholesky factor L.
"""

import itertools
import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

SHORT = 24  # bits of multipliers, and after the point of slopes, which are taken a little wider
MARGIN = 36  # m is 2^-36 of the largest scaled number on the diagonal
WIDEST, BITS = 2048, 1 << 31  # rows, and bits of all numbers together


def register(check: Any) -> None:
    """Add the method."""
    check.METHODS["multipliers"] = lambda network, claim: shown(check, network, claim)


class Layer(NamedTuple):
    """A matrix, and for each neuron a multiplier t, ``t (a + b)`` and ``2 t a b``, all exact."""

    weight: Any
    multipliers: list[Fraction]
    across: list[Fraction]
    inside: list[Fraction]


def shown(check: Any, network: Any, claim: Fraction) -> None:
    """Show that a claim is a Lipschitz constant of the network."""
    dense = check.MAPS["dense"]
    _, names = check.fields(network.method, "kind", "weights")
    fits = isinstance(names, list) and len(names) == len(network.parts) > 0
    check.need(fits, "multipliers for each block are asked")
    layers = []
    for name, (maps, kind, hidden, plain, *_) in zip(names, network.parts, strict=True):
        elementwise = plain and kind["kind"] == "leaky-relu"
        single = elementwise and len(maps) == 1 and type(maps[0]) is dense
        check.need(single, "multipliers need plain layers, each with one matrix, and no sorting")
        numbers = network.tensors.get(name, axes=1)
        check.need(numbers.shape == hidden and (numbers >= 0).all(), "multipliers are >= 0")
        slopes = np.broadcast_to(network.tensors.get(kind["slopes"]), hidden)
        layers.append(layer(maps[0].weight, slopes.tolist(), numbers.tolist()))
    check.need(len(network.last) == 1 and type(network.last[0]) is dense, "a matrix at the end")
    last = network.last[0].weight
    exact = all(weight.error == 0 for weight in [last, *(layer.weight for layer in layers)])
    check.need(exact, "multipliers need weights that are numbers of the grid")
    check.need(positive(form(check, layers, last, claim**2), check), check.TOO_LARGE)


def layer(weight: Any, slopes: list[float], numbers: list[float]) -> Layer:
    """A layer with short numbers: any multipliers >= 0 will do, and any slopes around the true."""
    found = Layer(weight, [], [], [])
    for slope, number in zip(slopes, numbers, strict=True):
        t, one = short(number), 1 << SHORT
        low = Fraction(min(one, math.floor(Fraction(slope) * one)), one)
        high = Fraction(max(one, math.ceil(Fraction(slope) * one)), one)
        found.multipliers.append(t)
        found.across.append(t * (low + high))
        found.inside.append(2 * t * low * high)
    return found


def short(number: float) -> Fraction:
    """A number rounded up to a few bits."""
    fraction, exponent = math.frexp(number)
    return math.ceil(math.ldexp(fraction, SHORT)) * Fraction(2) ** (exponent - SHORT)


def places(numbers: list[Fraction]) -> int:
    """Binary places of the finest of some numbers."""
    return max((number.denominator.bit_length() - 1 for number in numbers), default=0)


def form(check: Any, layers: list[Layer], last: Any, square: Fraction) -> Any:
    """The quadratic form as a matrix of Python integers, in some unit."""
    sizes = [layers[0].weight.ints.shape[1], *(len(layer.multipliers) for layer in layers)]
    ends = np.cumsum([0, *sizes]).tolist()
    check.need(ends[-1] <= WIDEST, "multipliers for a network that is too wide")
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    exponents = [grid.exponent if grid.ints.any() else 0 for grid in (w.weight for w in layers)]
    power = last.exponent if last.ints.any() else 0
    # every entry is a whole number of these
    unit = min(-places([square]), 2 * power)
    for single, e in zip(layers, exponents, strict=True):
        fine = places(single.multipliers), places(single.across) - e, places(single.inside) - 2 * e
        unit = min(unit, *(-place for place in fine))
    check.need(ends[-1] ** 2 * -unit <= BITS, "multipliers and weights of very different sizes")
    check.spend(ends[-1] ** 2 * -unit << 4)
    matrix = np.zeros((ends[-1], ends[-1]), object)
    index = np.arange(ends[-1])
    matrix[index[parts[0]], index[parts[0]]] = whole(square, unit)
    for k, (single, e) in enumerate(zip(layers, exponents, strict=True)):
        before, after, ints = parts[k], parts[k + 1], single.weight.ints.astype(object)
        at = index[after]
        across = np.array([whole(number, unit - e) for number in single.across], object)
        matrix[after, before] = -across[:, None] * ints
        matrix[before, after] = matrix[after, before].T
        matrix[at, at] = [whole(2 * t, unit) for t in single.multipliers]
        if any(single.inside):
            check.spend(ints.size * ints.shape[1] << 10)
            inside = np.array([whole(number, unit - 2 * e) for number in single.inside], object)
            matrix[before, before] += ints.T @ (inside[:, None] * ints)
    gram = check.product(check.digits(last.ints.T), check.digits(last.ints))
    matrix[parts[-1], parts[-1]] -= integers(check, gram) << (2 * power - unit)
    return matrix


def whole(number: Fraction, exponent: int) -> int:
    """A number as a multiple of ``2^exponent``, which it is."""
    found = number / Fraction(2) ** exponent
    assert found.denominator == 1
    return int(found)


def integers(check: Any, levels: list[Any]) -> Any:
    """Sums in digits as Python integers."""
    return sum((level.astype(object) << (check.DIGIT * k) for k, level in enumerate(levels)), 0)


def positive(matrix: Any, check: Any) -> bool:
    """Whether a matrix of integers is shown to have no negative eigenvalue."""
    diagonal = matrix.diagonal()
    if min(diagonal) <= 0:
        return False
    # shift entry i, j by s_i + s_j, so that the numbers on the diagonal have one length
    longest = max(int(d).bit_length() for d in diagonal)
    shifts = np.array([(longest - int(d).bit_length()) // 2 for d in diagonal], object)
    scaled = matrix << (shifts[:, None] + shifts)
    top = max(int(d).bit_length() for d in scaled.diagonal())
    top += top % 2  # scaled by 2^-top the diagonal is at most 1
    scaled, top = (scaled, top) if top >= 112 else (scaled << (112 - top), 112)
    margin = 1 << (top - MARGIN)
    rest = scaled - np.diag(np.full(len(matrix), margin, object))
    near = (rest >> (top - 62)).astype(np.float64) / 2.0**62
    try:
        factor = np.rint(np.linalg.cholesky(near) * 2.0**55)
    except np.linalg.LinAlgError:
        return False
    lower = check.digits(factor.astype(np.int64))
    squares = integers(check, check.product(lower, [x.T for x in lower]))
    residual = rest - (squares << (top - 110))
    return int((residual * residual).sum()) <= margin**2
