"""What the page of the format says of a bundle, in fractions: norms, values, radii."""

import itertools
import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np

from tests.checker.corpus import more_exact

Matrix = Any  # of fractions, dtype object
Record = dict[str, Any]
Tensors = dict[str, np.ndarray]
DIGITS = 60  # of functions that have no exact values


def fractions(a: np.ndarray) -> Matrix:
    """The numbers of a tensor."""
    found = np.empty(a.shape, object)
    found[...] = np.vectorize(Fraction, otypes=[object])(a.astype(np.float64)) if a.size else a
    return found


def after(x: float, steps: int = 1) -> float:
    """The next float64 numbers above, or below for negative steps."""
    for _ in range(abs(steps)):
        x = math.nextafter(x, math.inf if steps > 0 else 0.0)
    return x


def at_least(x: Fraction) -> float:
    """The least float64 number that is not below a fraction."""
    y = float(x)
    return y if Fraction(y) >= x else after(y)


def least(holds: Callable[[float], bool], near: float) -> float:
    """The least float64 number above 0 from which on a condition holds."""
    width = 2.0**-44  # what does not depend on how near it is: the answer is one number
    while holds(low := near * (1 - width)) and width < 1:
        width *= 2
    while not holds(high := near * (1 + width)):
        width *= 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


# Norms.


def definite(form: Matrix) -> bool:
    """Whether a symmetric matrix of fractions is positive definite: its leading minors are."""
    return _definite(whole(form)[0])


def whole(a: Matrix) -> tuple[Matrix, int]:
    """A matrix of fractions as whole numbers, and what they are multiplied by."""
    scale = math.lcm(*(x.denominator for x in a.flat))
    return np.vectorize(lambda x: int(x * scale), otypes=[object])(a), scale


def _definite(rows: Matrix) -> bool:
    """The same of whole numbers, by Bareiss: his pivots are the leading minors."""
    before = 1
    rows = rows.copy()
    while True:
        pivot, rest = rows[0, 0], rows[1:, 0]
        if pivot <= 0:
            return False
        if not len(rest):
            return True
        rows = (rows[1:, 1:] * pivot - rest[:, None] * rest) // before
        before = pivot


def _between(form: Matrix, square: bool) -> Callable[[float], bool]:
    """Whether x, or its square, times the identity is above a matrix, as a function of x."""
    ints, scale = whole(form)

    def holds(x: float) -> bool:
        level = Fraction(x) ** 2 if square else Fraction(x)
        rows = ints * -level.denominator
        rows[np.diag_indices(len(rows))] += level.numerator * scale
        return _definite(rows)

    return holds


def norm(a: Matrix) -> float:
    """The least float64 number above the spectral norm of a matrix of fractions."""
    if not a.any():
        return 0.0
    a = a.T if a.shape[0] < a.shape[1] else a
    ints, scale = whole(a)
    near = float(np.linalg.norm(a.astype(np.float64), 2))
    gram = fractions_of(ints.T @ ints, scale**2)
    return least(_between(gram, square=True), near)


def fractions_of(ints: Matrix, scale: int) -> Matrix:
    """Whole numbers over one denominator."""
    return np.vectorize(lambda x: Fraction(x, scale), otypes=[object])(ints)


# Maps, as matrices.


def convolution_matrix(
    weight: Matrix,
    size: tuple[int, ...],
    outputs: tuple[int, ...],
    record: Record,
    circular: bool,
) -> Matrix:
    """The matrix of a convolution of images of a size to images of another one."""
    (s, t), (p, q), (d, e) = record["stride"], record["padding"], record["dilation"]
    out, each, k, m = weight.shape
    channels, per = each * record["groups"], out // record["groups"]
    a = fractions(np.zeros((out, *outputs, channels, *size)))
    places = itertools.product(*map(range, (out, *outputs, each, k, m)))
    for o, y, x, c, i, j in places:
        row, column = y * s + i * d - p, x * t + j * e - q
        if circular:
            row, column = row % size[0], column % size[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            a[o, y, x, o // per * each + c, row, column] += weight[o, c, i, j]
    return a.reshape(out * math.prod(outputs), -1)


def convolution_sides(record: Record, weight: np.ndarray, inputs: tuple[int, ...]) -> list[int]:
    """Height and width of what a convolution gives."""
    names = ("padding", "dilation", "stride")
    sides = zip(inputs[1:], weight.shape[2:], *(record[name] for name in names), strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, p, d, s in sides]


def matrix(record: Record, tensors: Tensors, inputs: tuple[int, ...]) -> tuple[Matrix, Any, tuple]:
    """Matrix of a map, what it adds, and the shape that it gives."""
    count, kind = math.prod(inputs), record["map"]
    if kind == "dense":
        a = fractions(tensors[record["weight"]])
        return a, _added(record["bias"], tensors, a.shape[:1]), a.shape[:1]
    if kind == "convolution":
        weight = tensors[record["weight"]]
        sides = convolution_sides(record, weight, inputs)
        shape = (len(weight), *sides)
        a = convolution_matrix(
            fractions(weight), inputs[1:], tuple(sides), record, record["circular"]
        )
        return a, _added(record["bias"], tensors, shape), shape
    if kind == "scale":
        factor = np.broadcast_to(tensors[record["factor"]], inputs)
        shift = np.zeros(1) if record["shift"] is None else tensors[record["shift"]]
        a = fractions(np.diag(factor.reshape(-1).astype(np.float64)))
        return a, fractions(np.broadcast_to(shift, inputs).reshape(-1)), inputs
    if kind == "take":
        shape = tuple(record["outputs"])
        index = np.arange(count) if record["index"] is None else tensors[record["index"]]
        a = np.zeros((len(index), count))
        for i, k in enumerate(index.tolist()):
            a[i, k] = float(k >= 0)
        return fractions(a), 0, shape
    if kind == "adjoint":
        shape = tuple(record["inputs"])
        a, _, _ = matrix(record["of"], tensors, shape)
        return a.T, _added(record["bias"], tensors, shape), shape
    if kind == "fourier":
        weight = fractions(tensors[record["weight"]])
        shape = (weight.shape[2], *inputs[1:])
        return fourier_matrix(weight, inputs[2]), _added(record["bias"], tensors, shape), shape
    a, _, _ = matrix(record["of"], tensors, inputs)
    total = term = fractions(np.eye(count))
    for k in range(1, record["terms"]):
        term = a @ term / Fraction(k)
        total = total + term
    return total, 0, inputs


def _added(name: str | None, tensors: Tensors, shape: tuple[int, ...]) -> Any:
    """One number for each channel, for each entry."""
    if name is None:
        return 0
    return fractions(np.repeat(tensors[name], math.prod(shape[1:])))


TURNS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # real and imaginary part of powers of i


def _turn(k: int, n: int) -> tuple[int, int]:
    """``e^(2 pi i k / n)`` for sides whose roots of unity are whole numbers."""
    assert 4 % n == 0
    return TURNS[4 // n * k % 4]


def fourier_matrix(weight: Matrix, width: int) -> Matrix:
    """The matrix of a Fourier map, by the sum over frequencies of what one entry becomes."""
    height, half, out, channels, _ = weight.shape
    a = fractions(np.zeros((out, height, width, channels, height, width)))
    for y, x, k, j in itertools.product(*map(range, (height, width, height, half))):
        (p, q), (r, s) = _turn(k * y, height), _turn(j * x, width)
        re, im = p * r - q * s, p * s + q * r
        sides = 1 if j == 0 or 2 * j == width else 2
        part = (re * weight[k, j, ..., 0] - im * weight[k, j, ..., 1]) * Fraction(sides)
        for top, left in itertools.product(range(height), range(width)):
            a[:, (top + y) % height, (left + x) % width, :, top, left] += part
    return a.reshape(out * height * width, -1) / Fraction(height * width)


def fourier_norm(weight: Matrix) -> float:
    """The least float64 number above the norms of the matrices of all frequencies."""
    re, im = weight[..., 0], weight[..., 1]
    pairs = zip(re.reshape(-1, *re.shape[2:]), im.reshape(-1, *im.shape[2:]), strict=True)
    return max(norm(np.block([[x, -y], [y, x]])) for x, y in pairs)


def torus(record: Record, weight: np.ndarray, inputs: tuple[int, ...]) -> Matrix:
    """The convolution on the torus that the page gives it, whose norm the frequencies show."""
    sides = convolution_sides(record, weight, inputs)
    size = []
    for n, p, s, m in zip(inputs[1:], record["padding"], record["stride"], sides, strict=True):
        around = n if record["circular"] else max(n + p, s * m)
        size.append(-(-around // s) * s)
    outputs = tuple(n // s for n, s in zip(size, record["stride"], strict=True))
    return convolution_matrix(fractions(weight), tuple(size), outputs, record, True)


def claimed_norm(record: Record, tensors: Tensors, inputs: tuple[int, ...]) -> Fraction:
    """What the page asks a claim to be at least: by the witness, or the norm of the matrix."""
    kind = record["map"]
    if kind == "adjoint":
        return Fraction(float.fromhex(record["of"]["norm"]))
    if kind == "exponential":  # for three terms |p(y)|^2 = 1 + y^4 / 4, which grows
        assert record["terms"] == 3
        c = Fraction(float.fromhex(record["of"]["norm"]))
        return root_above(1 + c**4 / 4)
    if kind == "fourier":
        return Fraction(fourier_norm(fractions(tensors[record["weight"]])))
    if kind == "convolution" and record["witness"] == "torus":
        return Fraction(norm(torus(record, tensors[record["weight"]], inputs)))
    if kind == "convolution" and record["witness"] == "kernel":
        weight, seen = fractions(tensors[record["weight"]]), 1
        taps = zip(weight.shape[2:], record["dilation"], record["stride"], strict=True)
        for k, d, s in taps:
            residues = [i * d % s for i in range(k)]
            seen *= max(map(residues.count, residues))
        groups = weight.reshape(record["groups"], len(weight) // record["groups"], -1)
        return root_above(seen * Fraction(max(map(norm, groups))) ** 2)
    return Fraction(norm(matrix(record, tensors, inputs)[0]))


def root_above(x: Fraction) -> Fraction:
    """A fraction that is not below a root, near by 2^-100 of it."""
    shift = max(0, 200 - x.numerator.bit_length() + x.denominator.bit_length()) // 2 + 1
    return Fraction(math.isqrt(int(x * 4**shift)) + 1, 2**shift)


# Activations.


def _decimal(f: Callable[[Decimal], Decimal]) -> Callable[[Fraction], Fraction]:
    def value(x: Fraction) -> Fraction:
        with localcontext() as context:
            context.prec = DIGITS
            return Fraction(f(Decimal(x.numerator) / Decimal(x.denominator)))

    return value


def _sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


SMOOTH = {
    "softplus": _decimal(lambda x: (1 + x.exp()).ln()),
    "tanh": _decimal(lambda x: 2 * _sigmoid(2 * x) - 1),
    "sigmoid": _decimal(_sigmoid),
    "elu": _decimal(lambda x: x if x > 0 else x.exp() - 1),
    "silu": _decimal(lambda x: x * _sigmoid(x)),
    "gelu": more_exact.gelu,
    "gelu-tanh": more_exact.gelu_tanh,
    "mish": more_exact.mish,
    "softsign": more_exact.softsign,
}
DERIVATIVES = {
    "softplus": _decimal(_sigmoid),
    "tanh": _decimal(lambda x: 1 - (2 * _sigmoid(2 * x) - 1) ** 2),
    "sigmoid": _decimal(lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
}
SLOPES = {
    "sigmoid": (Fraction(0), Fraction(1, 4)),
    "silu": (Fraction(-1, 10), Fraction(11, 10)),
    "gelu": (Fraction("-0.12905"), Fraction("1.12905")),
    "gelu-tanh": (Fraction("-0.12905"), Fraction("1.12905")),
    "mish": (Fraction("-0.11253"), Fraction("1.0885")),
}
BENDS = {
    "softplus": (Fraction(0), Fraction(1, 4)),
    "tanh": (Fraction(-77, 100), Fraction(77, 100)),
    "sigmoid": (Fraction(-97, 1000), Fraction(97, 1000)),
}


def slopes(record: Record, tensors: Tensors) -> tuple[Fraction, Fraction]:
    """Slopes of an activation."""
    kind = record["kind"]
    if kind == "leaky-relu":
        a = fractions(tensors[record["slopes"]])
        return min(a.min(), Fraction(1)), max(a.max(), Fraction(1))
    if kind == "sort":
        return Fraction(-1), Fraction(1)
    if kind in ("max-pool", "pool"):
        root = root_above(square_constant(record, tensors))
        return -root, root
    if kind in more_exact.SHAPES:
        return more_exact.SHAPES[kind][1](_getter(tensors), record)
    if kind == "scaled":
        get, ends = _getter(tensors), SLOPES.get(record["of"], (Fraction(0), Fraction(1)))
        outer = [*get(record["above"]).flat, *get(record["below"]).flat]
        products = [
            p * q * r for p, q, r in itertools.product(ends, get(record["inner"]).flat, outer)
        ]
        return min(products), max(products)
    return SLOPES.get(kind, (Fraction(0), Fraction(1)))


def _getter(tensors: Tensors) -> Callable[[str | None], Any]:
    return lambda name: None if name is None else fractions(tensors[name])


def square_constant(record: Record, tensors: Tensors) -> Fraction:
    """The square of the Lipschitz constant that the page gives an activation."""
    if record["kind"] == "max-pool":
        pairs = zip(record["size"], record["stride"], strict=True)
        return Fraction(math.prod(-(-k // s) for k, s in pairs))
    if record["kind"] == "pool":
        index = tensors[record["index"]]
        return Fraction(int(np.bincount(index[index >= 0]).max()))
    low, high = slopes(record, tensors)
    return max(high, -low) ** 2


def activated(record: Record, tensors: Tensors, x: Matrix) -> Matrix:
    """An activation of an input in its shape."""
    kind = record["kind"]
    if kind == "leaky-relu":
        below = x * fractions(np.broadcast_to(tensors[record["slopes"]], x.shape))
        return np.where(x > 0, x, below)
    if kind == "sort":
        groups = x.reshape(-1, record["size"], *x.shape[1:])
        groups = np.sort(groups, 1)
        return (groups[:, ::-1] if record["descending"] else groups).reshape(x.shape)
    if kind == "max-pool":
        (k, m), (s, t) = record["size"], record["stride"]
        seen = np.lib.stride_tricks.sliding_window_view(x, (k, m), (1, 2))
        return seen[:, ::s, ::t].max((-2, -1))
    if kind == "pool":
        groups = [x.reshape(-1)[row[row >= 0]] for row in tensors[record["index"]]]
        found = [g.max() if record["of"] == "maximum" else root_above(g @ g) for g in groups]
        return np.array(found, object).reshape(record["outputs"])
    if kind in more_exact.SHAPES:
        return more_exact.SHAPES[kind][0](_getter(tensors), record, x)
    if kind == "scaled":
        get, of = _getter(tensors), np.vectorize(SMOOTH[record["of"]], otypes=[object])
        x = get(record["inner"]) * x
        return np.where(x > 0, get(record["above"]), get(record["below"])) * of(x)
    return np.vectorize(SMOOTH[kind], otypes=[object])(x)


# Networks.


def through(maps: list[Record], tensors: Tensors, x: Matrix) -> Matrix:
    """Maps one after the other."""
    for record in maps:
        a, shift, shape = matrix(record, tensors, x.shape)
        x = (a @ x.reshape(-1) + shift).reshape(shape)
    return x


def block(record: Record, tensors: Tensors, x: Matrix) -> Matrix:
    """A block."""
    y = activated(record["activation"], tensors, through(record["inner"], tensors, x))
    if "step" in record:
        a, _, _ = matrix(record["inner"][0], tensors, x.shape)
        step = Fraction(float.fromhex(record["step"]))
        return x - step * (a.T @ y.reshape(-1)).reshape(x.shape)
    y = through(record["outer"], tensors, y)
    return y if record["skip"] is None else y + through(record["skip"], tensors, x)


def network(record: Record, tensors: Tensors, x: Matrix) -> Matrix:
    """The network."""
    for part in record["blocks"]:
        x = block(part, tensors, x)
    return through(record["last"], tensors, x)


def product(records: list[Record], name: str) -> Fraction:
    """A product of claims."""
    return math.prod((Fraction(float.fromhex(r[name])) for r in records), start=Fraction(1))


def bound_of_block(record: Record, tensors: Tensors) -> Fraction:
    """The least bound of a block, or 2^-100 of it more where that is a root."""
    inner = product(record["inner"], "norm")
    if "step" in record:
        low, high = slopes(record["activation"], tensors)
        size = Fraction(float.fromhex(record["step"])) * inner**2
        return max(Fraction(1), size * high - 1, 1 - size * min(low, Fraction(0)))
    square = square_constant(record["activation"], tensors)
    most = Fraction(math.isqrt(int(square))) if square.denominator == 1 else root_above(square)
    most = most if most**2 == square else root_above(square)
    found = most * inner * product(record["outer"], "norm")
    return found + (product(record["skip"], "norm") if record["skip"] is not None else 0)


# Radii.


def bend(record: Record, tensors: Tensors, i: int, j: int) -> float:
    """The least float64 number above the squared norm of ``diag(a) U`` for a pair of outputs."""
    part, last = record["blocks"][-1], record["last"][0]
    u, v = fractions(tensors[part["inner"][0]["weight"]]), fractions(tensors[last["weight"]])
    ends = BENDS[part["activation"]["kind"]]
    squares = [max(*(-d * end for end in ends), Fraction(0)) for d in v[i] - v[j]]
    form = u.T @ (np.array(squares, object)[:, None] * u)
    if not form.any():
        return 0.0
    near = float(np.linalg.eigvalsh(form.astype(np.float64))[-1])
    return least(_between(form, square=False), near)


def radius(
    record: Record,
    tensors: Tensors,
    sample: int,
    room: Fraction,
    wrong: Callable[[int, int], Fraction] = lambda own, rival: Fraction(0),
) -> float:
    """The least float64 radius that the page refuses, with margins that are smaller by some room.

    The room is in units of the largest logit, or of 1 if that is less; what is wrong of the
    difference of two outputs is more of it.
    """
    x = fractions(tensors[record["samples"]["inputs"]][sample])
    net, head, own = record["network"], record["samples"]["head"], None
    own = record["samples"]["predictions"][sample]
    logits = network(net, tensors, x).reshape(-1)
    less = room * max(1, *map(abs, logits))
    body = product(net["blocks"], "bound")
    found = []
    for rival in range(len(logits)):
        if rival == own:
            continue
        margin = logits[own] - logits[rival] - less - wrong(own, rival)
        assert margin > 0, "a prediction that is not the largest output"
        if isinstance(head, dict):
            gradient, curved, reach = _parabola(record, tensors, x, own, rival)
            holds = _above_parabola(margin, gradient, curved, reach)
            found.append(least(lambda r, holds=holds: not holds(r), float(margin / reach)))
            continue
        if head == "pairs":
            rows = fractions(tensors[net["last"][-1]["weight"]])
            d = rows[own] - rows[rival]
            square = (d @ d) * (body * product(net["last"][:-1], "norm")) ** 2
        else:
            whole = body * product(net["last"], "norm")
            if net["method"] is not None:
                whole = Fraction(float.fromhex(record["bound"]))
            square = 2 * whole**2
        holds = lambda r, m=margin, s=square: Fraction(r) ** 2 * s >= m**2  # noqa: E731
        found.append(least(holds, float(margin) / math.sqrt(square)))
    return min(found)


def _parabola(record: Record, tensors: Tensors, x: Matrix, own: int, rival: int) -> Any:
    """Squared length of a gradient, curvature, and how much a step of the input is there."""
    *before, part = record["network"]["blocks"]
    for each in before:
        x = block(each, tensors, x)
    inner, kind = part["inner"][0], part["activation"]["kind"]
    u = fractions(tensors[inner["weight"]])
    v = fractions(tensors[record["network"]["last"][0]["weight"]])
    slope = np.vectorize(DERIVATIVES[kind], otypes=[object])(through([inner], tensors, x))
    g = (slope * (v[own] - v[rival])) @ u
    bends = tensors[record["samples"]["head"]["bends"]]
    return g @ g, Fraction(float(bends[own, rival])), product(before, "bound")


def _above_parabola(
    margin: Fraction, square: Fraction, curved: Fraction, reach: Fraction
) -> Callable[[float], bool]:
    def holds(radius: float) -> bool:
        p = Fraction(radius) * reach
        rest = margin - curved * p**2 / 2
        return rest > 0 and rest**2 > square * p**2

    return holds
