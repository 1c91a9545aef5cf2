"""Check a proof of Lipschitz constants and certified radii, in exact integers.

    python check.py BUNDLE

It shares nothing with the program that wrote the bundle, and says VALID, or INVALID with the first
line that fails; what is not known, here or in the files of ``kinds`` beside it, is INVALID.

A bundle is a folder with ``proof.json`` and ``tensors.safetensors``: a network of linear maps and
activations, and claims, which are a norm of each map, a Lipschitz constant of each block and of the
whole, and for each sample a prediction and a radius. The network is the function of real numbers
that the tensors define. VALID means that each claimed number is an upper bound of its norm or
constant, and that the prediction does not change within the radius around each sample.

How it can be sure: a float64 adds integers below 2^53 without error, in any order, with or without
fused operations. So tensors are integers on grids of powers of two, these have digits of 19 bits,
and a product of digits is a float64 product whose sums stay below 2^53. No rounding analysis has to
be believed (for a product by Strassen's scheme one would; numpy's BLAS has none).

``|A| <= c`` is shown by ``A^T A <= t I + |t I - A^T A - L L^T|`` for t a little below c^2 and a
Cholesky factor L in float64; whatever that is, the residual is computed exactly.
"""

import copy
import functools
import hashlib
import importlib.util
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Say = Callable[[str], None]

DIGIT, HALF, MASK = 19, 1 << 18, (1 << 19) - 1
WEIGHT, VALUE = 54, 37  # bits of weights (three digits) and of values (two)
LARGEST, WIDEST = 1 << 26, 1 << 24  # entries of tensors and of matrices, and of a layer
WORK = 1 << 42  # what a bundle may ask for, and 2^16 for each byte of tensors: some minutes
AT_ONCE, SAMPLES = 1 << 20, 16  # entries of matrices that are proved, samples that run together
ZERO, ONE, ROOM = Fraction(0), Fraction(1), Fraction(1, 1 << 34)  # t = c^2 (1 - ROOM)
TOO_LARGE = "the norm is larger than claimed, or too near to show it"


class Invalid(Exception):  # noqa: N818
    """The bundle does not prove what it claims, or cannot be read."""


def need(holds: Any, message: str) -> None:
    """Refuse the bundle unless a condition holds."""
    if not holds:
        raise Invalid(message)


class Work:
    """Products of numbers that may still be taken, or what takes as long."""

    left: float = math.inf


def spend(work: int) -> None:
    """Refuse a bundle that asks for too much: a small file can ask for days."""
    Work.left -= work
    need(
        Work.left >= 0, "more work than is allowed; python check.py BUNDLE 9 allows 9 times as much"
    )


# Rational numbers. What grows is rounded up to 64 bits, and stays within 2^-LONG and 2^LONG.

LONG = 1 << 14


def two(exponent: int) -> Fraction:
    """A power of two."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def upwards(x: Fraction) -> Fraction:
    """A number of some 64 bits that is not below x >= 0."""
    length = x.numerator.bit_length() - x.denominator.bit_length()
    need(length < LONG, "a number is too large")
    unit = two(max(length, -LONG) - 64)
    return -((-x) // unit) * unit


def root(x: Fraction) -> Fraction:
    """A number of some 64 bits that is not below the root of x >= 0."""
    unit = two((x.numerator.bit_length() - x.denominator.bit_length() - 128) // 2)
    return (math.isqrt(-((-x) // unit**2)) + 1) * unit if x else x


# Integers in balanced digits: the sum of digit[k] 2^(19 k), |digit| <= 2^18, the lowest first.


def carried(levels: list[Array]) -> list[Array]:
    """Balanced digits of sums below 2^60 at each level, int64."""
    found: list[Array] = []
    carry: Array = np.zeros((), np.int64)
    while len(found) < len(levels) or carry.any():
        total = carry + levels[len(found)] if len(found) < len(levels) else carry
        found.append(((total + HALF) & MASK) - HALF)
        carry = (total - found[-1]) >> DIGIT
    return found


def digits(a: Array) -> list[Array]:
    """Balanced digits of integers below 2^56, as float64."""
    return [digit.astype(np.float64) for digit in carried([a])]


def product(a: list[Array], b: list[Array]) -> list[Array]:
    """Exact product of matrices in digits: sums below 2^56 at each level, int64."""
    count, terms = a[0].shape[-1], min(len(a), len(b))
    block = (1 << 53) // (terms << 36) - 1  # as many products of digits as float64 adds exactly
    need(count <= 8 * block, "a sum is too long")
    rows = max(math.prod(a[0].shape[:-1]), math.prod(b[0].shape[:-2]) * a[0].shape[-2])
    spend(rows * b[0].shape[-1] * (count + 64) * len(a) * len(b))
    levels: list[Array] = [np.zeros((), np.int64)] * (len(a) + len(b) - 1)
    for at in range(0, count, block):
        for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)):
            part = x[..., at : at + block] @ y[..., at : at + block, :]
            levels[i + j] = levels[i + j] + part.astype(np.int64)
    return levels


def frobenius(levels: list[Array]) -> Fraction:
    """Upper bound of the largest Frobenius norm of a batch of matrices in digits."""
    total = ZERO
    for k, digit in enumerate(carried(levels)):
        need(0 < math.prod(digit.shape[-2:]) <= LARGEST, "a matrix is empty or too large")
        total += root(Fraction(int((digit * digit).sum((-2, -1)).max()))) * two(DIGIT * k)
    return total


def shortened(levels: list[Array], bits: int) -> tuple[Array, int]:
    """Integers of at most ``bits`` bits and an exponent: within 1.02 units of the sums."""
    found = carried(levels)
    while len(found) > 1 and not found[-1].any():
        found.pop()
    drop = max(0, len(found) - 3)
    a: Array = sum((x << (DIGIT * k) for k, x in enumerate(found[drop:])), np.zeros((), np.int64))
    shift = max(0, int(np.abs(a).max()).bit_length() - bits)
    return ((a + (1 << shift >> 1)) >> shift if shift else a), DIGIT * drop + shift


@dataclass(frozen=True)
class Grid:
    """A tensor, or a batch of samples, each up to ``error`` in Euclidean norm from the true one."""

    ints: Array
    exponent: int
    error: Fraction = ZERO

    @classmethod
    def of(cls, a: Array, bits: int = WEIGHT) -> "Grid":
        """Floating-point numbers."""
        need(np.isfinite(a).all(), "a number is infinite or NaN")
        spend(a.size << 8)
        a = a.astype(np.float64)
        exponent = int(np.frexp(np.abs(a).max())[1]) - bits if a.any() else -2000
        scaled = np.ldexp(a, -exponent)
        nearest = np.rint(scaled)
        off = int(((nearest != scaled) | ((nearest == 0) & (a != 0))).sum())
        return cls(nearest.astype(np.int64), exponent, root(Fraction(off)) * two(exponent - 1))

    @classmethod
    def rounded(cls, levels: list[Array], exponent: int, error: Fraction) -> "Grid":
        """A batch from sums in digits."""
        ints, shift = shortened(levels, VALUE)
        spend(ints.size << 9)
        exponent = exponent + shift if ints.any() else -2000
        need(abs(exponent) < LONG, "a number is too large or too small")
        return cls(ints, exponent, error).off(102 * bool(shift))

    def off(self, percent: int) -> "Grid":
        """A batch whose entries may be off by so many hundredths of a unit more."""
        lost = percent * two(self.exponent) * root(Fraction(self.ints[0].size)) / 100
        return replace(self, error=upwards(self.error + lost))

    def length(self) -> Fraction:
        """Upper bound of the length of each sample."""
        high = (np.abs(self.ints) >> DIGIT) + 1
        square = int((high * high).reshape(len(high), -1).sum(1).max())
        return upwards(root(Fraction(square)) * two(self.exponent + DIGIT) + self.error)

    def on(self, exponent: int) -> "Grid":
        """A batch on this grid, which is no finer."""
        shift = min(exponent - self.exponent, 60)  # from 38 on nothing is left
        ints = (self.ints + (1 << shift >> 1)) >> shift
        return Grid(ints, exponent, self.error).off(100 * bool(shift))

    def plus(self, other: "Grid") -> "Grid":
        """The sum; ``other`` may be one sample for the whole batch."""
        exponent = max(self.exponent, other.exponent)
        a, b = self.on(exponent), other.on(exponent)
        return Grid.rounded([a.ints + b.ints], exponent, a.error + b.error)

    def times(self, factor: "Grid", most: Fraction) -> "Grid":
        """A batch times factors that broadcast, at most ``most`` in absolute value."""
        levels = [self.ints * digit for digit in carried([factor.ints])]
        error = most * self.error + factor.error * self.length()
        return Grid.rounded(levels, self.exponent + factor.exponent, error)


def bounded(a: Array, square: Fraction) -> None:
    """Show that matrices of integers, ``(..., m, n)``, have norms of at most this square."""
    a = np.swapaxes(a, -1, -2) if a.shape[-1] > a.shape[-2] else a
    if frobenius([a]) ** 2 <= square:
        return
    parts, level, index = digits(a), int(square * (1 - ROOM)), np.arange(a.shape[-1])
    need(level.bit_length() > DIGIT, TOO_LARGE)
    rest = [-x for x in product([np.swapaxes(x, -1, -2) for x in parts], parts)]
    number = level
    for k in itertools.count():
        rest += [np.zeros_like(rest[0])] * (k == len(rest))
        low = ((number + HALF) & MASK) - HALF
        rest[k][..., index, index] += low
        if not (number := (number - low) >> DIGIT):
            break
    # scaled by 2^-top into the range of float64; the factor has 47 to 56 bits after the point, as
    # many as put its square on the grid of the digits
    choices = itertools.product(range(56, 46, -1), (level.bit_length(), level.bit_length() + 1))
    bits, top = next((q, t) for q, t in choices if (t - 2 * q) % DIGIT == 0)
    near = sum(np.ldexp(x.astype(np.float64), DIGIT * k - top) for k, x in enumerate(rest))
    try:
        factor = np.rint(np.ldexp(np.linalg.cholesky(near), bits))
    except np.linalg.LinAlgError:
        raise Invalid(TOO_LARGE) from None
    need((np.abs(factor) < 2.0**56).all(), TOO_LARGE)
    lower, zero = digits(factor.astype(np.int64)), np.zeros_like(rest[0])
    squares = product(lower, [np.swapaxes(x, -1, -2) for x in lower])
    apart = (top - 2 * bits) // DIGIT  # digits by which the squares stand higher than the rest
    sides = [zero] * -min(0, apart) + rest, [zero] * max(0, apart) + squares
    residual = [x - y for x, y in itertools.zip_longest(*sides, fillvalue=zero)]
    need(level + frobenius(residual) * two(DIGIT * min(0, apart)) <= square, TOO_LARGE)


def objects(data: bytes) -> Any:
    """JSON without repeated names."""
    try:
        return json.loads(data.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"JSON that cannot be read: {str(error)[:80]}") from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are different ones."""
    need(len(dict(pairs)) == len(pairs), "a name occurs twice in an object")
    return dict(pairs)


def fields(record: Any, *names: str) -> list[Any]:
    """Values of exactly these names of an object."""
    need(isinstance(record, dict), f"an object with {', '.join(names)} is asked")
    wrong = sorted(set(record) ^ {*names})
    need(not wrong, f"unknown or missing: {', '.join(wrong)[:80]}")
    return [record[name] for name in names]


def number(text: Any) -> Fraction:
    """A float64 number >= 0 in hexadecimal form, as 0x1.8p+1."""
    hexadecimal = r"0x([0-9a-f]+)(?:\.([0-9a-f]*))?p([+-]?[0-9]{1,5})"
    found = re.fullmatch(hexadecimal, text) if isinstance(text, str) and len(text) < 40 else None
    need(found, f"{str(text)[:40]} is no number like 0x1.8p+1")
    before, after, exponent = found.groups(default="")  # type: ignore[union-attr]
    value = int(before + after, 16) * two(int(exponent) - 4 * len(after))
    # no rounding: somebody may believe what stands there
    need(value < two(1024) - two(970) and float(value) == value, f"{text} is no number of float64")
    return value


def whole(value: Any, least: int = 0, most: int = LARGEST) -> int:
    """A whole number within limits."""
    need(type(value) is int and least <= value <= most, f"no number from {least} to {most}")
    return int(value)


def wholes(value: Any, count: int | None = None, least: int = 0, most: int = LARGEST) -> Shape:
    """Whole numbers."""
    need(isinstance(value, list) and count in (None, len(value)), "a list of numbers is asked")
    return tuple(whole(item, least, most) for item in value)


def shape_of(value: Any) -> Shape:
    """A shape of something that is not empty."""
    shape = wholes(value, least=1)
    need(0 < len(shape) < 9 and math.prod(shape) <= WIDEST, "a shape is empty or too large")
    return shape


class Tensors:
    """The tensors of a safetensors file, by name; each byte of the file belongs to one."""

    def __init__(self, data: bytes) -> None:
        size, end, most = int.from_bytes(data[:8], "little"), 0, 1 << 40
        need(8 + size <= len(data), "a file of tensors is cut off")
        header, body = objects(data[8 : 8 + size]), data[8 + size :]
        need(isinstance(header, dict), "a file of tensors has no header")
        header.pop("__metadata__", None)
        entries, self.known = [], dict[str, Array]()
        for name, entry in header.items():
            kind, sides, offsets = fields(entry, "dtype", "shape", "data_offsets")
            need(kind in ("F64", "F32", "I64", "U8"), f"tensor {name[:40]}: unknown type")
            dtype = np.dtype(f"<{kind[0].lower()}{int(kind[1:]) // 8}")
            entries.append((wholes(offsets, 2, most=most), name, dtype, wholes(sides)))
        for (first, last), name, dtype, shape in sorted(entries, key=lambda entry: entry[0]):
            need(first == end and last <= len(body), f"tensor {name[:40]}: gap, overlap or cut")
            fits = last - first == math.prod(shape) * dtype.itemsize
            need(fits and math.prod(shape) <= LARGEST, f"tensor {name[:40]}: another size")
            self.known[name], end = np.frombuffer(body[first:last], dtype).reshape(shape), last
        need(end == len(body), "bytes after the last tensor")

    def get(self, name: Any, kinds: str = "f", axes: int = 0, onto: Shape | None = None) -> Array:
        """A tensor of floats, or of whole numbers (``"iu"``), with so many axes if not 0."""
        need(isinstance(name, str) and name in self.known, f"no tensor {str(name)[:40]}")
        a = self.known[name]
        fits = a.dtype.kind in kinds and a.size > 0 and axes in (0, a.ndim)
        if onto is not None:
            pairs = zip(reversed(a.shape), reversed(onto), strict=False)
            fits = fits and a.ndim <= len(onto) and all(m in (1, n) for m, n in pairs)
        need(fits, f"tensor {name[:40]}: other numbers or axes are asked")
        return a


# Linear maps, which have a norm that is claimed, then checked, then used, and perhaps a shift.


class Linear:
    """A linear map from ``inputs`` to ``outputs``, read from a record of ``proof.json``."""

    names: tuple[str, ...]
    read: Any  # takes tensors and the values of these names
    check: Any  # shows that the norm is as claimed, and says how
    image: Any  # of a batch, without the shift
    weight: Grid

    def __init__(self, record: Any, tensors: Tensors, inputs: Shape) -> None:
        _, norm, *values = fields(record, "map", "norm", *self.names)
        self.norm, self.inputs, self.outputs = number(norm), inputs, inputs
        self.shift: Grid | None = None
        self.size = 0  # entries of an array that the image of one sample needs
        self.read(tensors, *values)
        self.size = max(self.size, math.prod(shape_of([*self.outputs])))

    def __call__(self, x: Grid) -> Grid:
        """The image of a batch."""
        y: Grid = self.image(x)
        return y if self.shift is None else y.plus(self.shift)

    def most(self, error: Fraction) -> Fraction:
        """Square that the norm of the integers may have, if the map is known up to an error."""
        need(self.norm >= error, TOO_LARGE)
        return ((self.norm - error) / two(self.weight.exponent)) ** 2

    def adjoint(self) -> "Linear":
        """The adjoint without a shift, of the maps that gradient steps may have."""
        raise Invalid("a step needs a matrix or a convolution")

    def shifted(self, tensors: Tensors, name: Any) -> None:
        """Add one number to each channel, or, for a null, nothing."""
        if name is not None:
            a = tensors.get(name, axes=1)
            need(len(a) == self.outputs[0], f"tensor {name[:40]}: one number a channel is asked")
            self.shift = self.spread(a.reshape(-1, *(1,) * (len(self.outputs) - 1)))

    def spread(self, a: Array) -> Grid:
        """Numbers that broadcast onto the outputs, as one sample; it takes no memory."""
        grid, shape = Grid.of(a, VALUE), (1, *self.outputs)
        error = grid.error * root(Fraction(math.prod(shape)))
        return replace(grid, ints=np.broadcast_to(grid.ints, shape), error=error)


class Dense(Linear):
    """A matrix times what comes in, flattened."""

    names = "weight", "bias"

    def read(self, tensors: Tensors, *values: Any) -> None:
        """Take weight and bias."""
        name, bias = values
        matrix = tensors.get(name, axes=2)
        fits = math.prod(self.inputs) == matrix.shape[1]
        need(fits, f"tensor {name[:40]}: {self.inputs} goes in")
        self.weight, self.outputs = Grid.of(matrix), matrix.shape[:1]
        self.shifted(tensors, bias)

    def check(self) -> str:
        """By a factor."""
        bounded(self.weight.ints, self.most(self.weight.error))
        return "matrix"

    def image(self, x: Grid) -> Grid:
        """Multiply."""
        rows = x.ints.reshape(len(x.ints), -1)
        levels = product(digits(rows), digits(self.weight.ints.T))
        error = self.norm * x.error + self.weight.error * x.length()
        shaped = [level.reshape(-1, *self.outputs) for level in levels]
        return Grid.rounded(shaped, x.exponent + self.weight.exponent, error)

    def adjoint(self) -> Linear:
        """The transposed matrix."""
        other = copy.copy(self)
        other.inputs, other.outputs, other.shift = self.outputs, self.inputs, None
        other.weight = replace(self.weight, ints=self.weight.ints.T)
        return other


MAPS: dict[str, Any] = {"dense": Dense}


class Activation(NamedTuple):
    """A nonlinearity with slopes, or with a Lipschitz constant and its negative in their place."""

    low: Fraction
    high: Fraction
    outputs: Shape
    apply: Callable[[Grid], Grid]


def leaky(tensors: Tensors, inputs: Shape, name: Any) -> Activation:
    """Factors below 0, which broadcast: 0 for ReLU, -1 for absolute values."""
    grid = Grid.of(tensors.get(name, onto=inputs))
    low = min(int(grid.ints.min()) * two(grid.exponent) - grid.error, ONE)
    high = max(int(grid.ints.max()) * two(grid.exponent) + grid.error, ONE)
    most = max(high, -low)

    def apply(x: Grid) -> Grid:
        below = replace(x, ints=np.minimum(x.ints, 0), error=ZERO).times(grid, most)
        return replace(x, ints=np.maximum(x.ints, 0), error=most * x.error).plus(below)

    return Activation(low, high, inputs, apply)


ACTIVATIONS: Any = {"leaky-relu": (leaky, "slopes")}


METHODS: dict[str, Any] = {}  # to show a smaller constant than the product


class Network:
    """Blocks and linear maps after them; every claim is checked while it is read."""

    def __init__(self, record: Any, tensors: Tensors, inputs: Shape, say: Say) -> None:
        blocks, last, self.method = fields(record, "blocks", "last", "method")
        need(isinstance(blocks, list), "a list of blocks is asked")
        self.tensors, self.say, self.body, self.parts = tensors, say, ONE, list[Any]()
        self.size = math.prod(inputs)
        self.blocks: list[Callable[[Grid], Grid]] = []
        for place, block in enumerate(blocks):
            inputs = self.block(block, inputs, f"block {place}")
        self.last, self.outputs = self.maps(last, inputs, "last")
        self.constant = self.body * norm_of(self.last)
        self.batch = max(1, min(SAMPLES, (WIDEST << 1) // self.size))  # samples that run together

    def __call__(self, x: Grid) -> Grid:
        """The network on a batch."""
        return through(self.last, through(self.blocks, x))

    def maps(self, records: Any, inputs: Shape, place: str) -> tuple[list[Linear], Shape]:
        """Linear maps one after the other."""
        need(isinstance(records, list), f"{place}: a list of linear maps is asked")
        found: list[Linear] = []
        for record in records:
            kind = known(MAPS, record, "map")
            try:
                found.append(MAPS[kind](record, self.tensors, inputs))
                how = found[-1].check()
            except Invalid as error:
                raise Invalid(f"{place}, {kind}: {error}") from None
            inputs = found[-1].outputs
            self.size = max(self.size, found[-1].size)
            spend(1 << 22)
            self.say(f"{place}: {kind} to {inputs}, norm <= {float(found[-1].norm):.9g}, {how}")
        return found, inputs

    def block(self, record: Any, inputs: Shape, place: str) -> Shape:
        """Read ``outer(act(inner(x))) + skip(x)``, or ``x - step inner^T act(inner(x))``."""
        stepped = isinstance(record, dict) and "step" in record
        names = ("step",) if stepped else ("outer", "skip")
        inner, kind, bound, *rest = fields(record, "inner", "activation", "bound", *names)
        before, hidden = self.maps(inner, inputs, place)
        make, *arguments = ACTIVATIONS[known(ACTIVATIONS, kind, "kind")]
        act = make(self.tensors, hidden, *fields(kind, "kind", *arguments)[1:])
        claim, least, step = number(bound), norm_of(before), number(rest[0]) if stepped else ONE
        around: list[Linear] | None = [] if stepped else None  # an empty list is the identity
        if stepped:
            need(len(before) == 1 and act.outputs == hidden, f"{place}: a step has one map")
            after, outputs, reach = [before[0].adjoint()], inputs, step * least**2
            # the eigenvalues of I - step W^T D W, D between the slopes
            least = max(ONE, reach * act.high - 1, 1 - reach * min(act.low, ZERO))
        else:
            after, outputs = self.maps(rest[0], act.outputs, place)
            least *= max(act.high, -act.low) * norm_of(after)
            if rest[1] is not None:
                around, end = self.maps(rest[1], inputs, place)
                need(end == outputs, f"{place}: a sum of {end} and {outputs}")
                least += norm_of(around)
        need(claim >= least, f"{place}: its constant may be larger than claimed")
        self.say(f"{place}: constant <= {float(claim):.9g}")
        self.body = upwards(self.body * claim)

        def run(x: Grid) -> Grid:
            centre = replace(x, error=ZERO)
            y = act.apply(through(before, centre))
            y = through(after, Grid.rounded([y.ints], y.exponent, y.error))
            y = y.times(Grid.of(np.array([-float(step)])), step) if stepped else y
            y = y if around is None else y.plus(through(around, centre))
            return replace(y, error=upwards(y.error + claim * x.error))

        self.blocks.append(run)
        plain, length = around is None and not after, step if stepped else None
        self.parts.append((before, kind, hidden, plain, claim, act, after, around, length))
        return outputs


def known(table: Collection[str], record: Any, name: str) -> str:
    """Kind of a record, by its name in a table."""
    kind = record.get(name) if isinstance(record, dict) else record
    need(isinstance(kind, str) and kind in table, f"unknown {name} {str(kind)[:40]}")
    return str(kind)


def norm_of(maps: list[Linear]) -> Fraction:
    """Product of norms."""
    total = ONE
    for linear in maps:
        total *= linear.norm
        need(total.denominator.bit_length() < LONG << 4, "a product of norms is too small")
    return total


def through(maps: Sequence[Callable[[Grid], Grid]], x: Grid) -> Grid:
    """Maps one after the other."""
    for each in maps:
        x = each(x)
    return x


def constants(network: Network, head: Any) -> Callable[[int], list[Fraction]]:
    """Constants of the differences of one output and all."""
    classes = math.prod(network.outputs)
    need(classes <= WIDEST >> 12, "too many outputs")
    if head == "network":
        return lambda _: [root(Fraction(2)) * network.constant] * classes
    need(head == "pairs" and network.last, f"unknown head {str(head)[:40]}")
    *before, matrix = network.last
    need(type(matrix) is Dense, "pairs need a matrix at the end")
    rows, factor = matrix.weight, network.body * norm_of(before)
    gram = product(digits(rows.ints), digits(rows.ints.T))

    def whole_numbers(part: Any) -> Any:
        return sum(level[part].astype(object) << (DIGIT * k) for k, level in enumerate(gram))

    lengths = whole_numbers(np.diag_indices(classes))

    def of_row(own: int) -> list[Fraction]:
        spend(classes << 16)
        squares = lengths + lengths[own] - 2 * whole_numbers(own)
        apart = [root(Fraction(int(x))) * two(rows.exponent) + 2 * rows.error for x in squares]
        return [upwards(factor * length) for length in apart]

    return functools.cache(of_row)


def by_constants(network: Network, head: Any) -> Callable[[Grid, Shape, list[Fraction]], str]:
    """Show radii by constants of the differences of two outputs; the reason if one is too large."""
    between, classes = constants(network, head), math.prod(network.outputs)

    def shown(x: Grid, predicted: Shape, claims: list[Fraction]) -> str:
        spend(len(predicted) * classes << 15)
        logits = network(x)
        slack, unit = root(Fraction(2)) * logits.error, two(logits.exponent)
        for at, (own, claim) in enumerate(zip(predicted, claims, strict=True)):
            row = logits.ints[at].reshape(-1)
            for rival in set(range(classes)) - {own} if claim else ():
                margin = int(row[own] - row[rival]) * unit - slack
                if claim * between(own)[rival] >= margin:
                    return f"{at}: the radius against {rival} is smaller than claimed"
        return ""

    return shown


HEADS: dict[str, Any] = {"network": by_constants, "pairs": by_constants}


def check_samples(record: Any, network: Network, heads: Any, inputs: Shape, say: Say) -> None:
    """Show that no output overtakes the predicted one within the radius around each sample."""
    name, predictions, radii, head = fields(record, "inputs", "predictions", "radii", "head")
    x, classes = network.tensors.get(name), math.prod(network.outputs)
    need(x.shape[1:] == inputs, f"tensor {name[:40]}: samples of {inputs} are asked")
    predicted = wholes(predictions, len(x), most=classes - 1)
    need(isinstance(radii, list) and len(radii) == len(x), "one radius for each sample is asked")
    claims = [number(radius) for radius in radii]
    shown = heads[known(heads, head, "kind")](network, head)
    for first in range(0, len(x), network.batch):
        part = slice(first, first + network.batch)
        reason = shown(Grid.of(x[part], VALUE), predicted[part], claims[part])
        at, _, why = reason.partition(":")  # the number within the batch
        need(not reason, f"sample {first + int(at or 0)}:{why}")
    say(f"{len(x)} samples, radii from {float(min(claims)):.6g} to {float(max(claims)):.6g}")


ASSUMED = """Taken on trust: this network runs elsewhere, in exact real numbers (level real);
samples are what their owner says; Python, and numpy's sums and products of integers, are right."""


def real(level: Any, _: Network) -> tuple[dict[str, Any], str]:
    """Heads, and what is trusted, where radii are about the exact function."""
    need(level == "real", "another level")
    return HEADS, ASSUMED


LEVELS: dict[str, Any] = {"real": real}


def check(bundle: Path, say: Say = print, work: int = 1) -> str:
    """Check all that a bundle claims, and say each line; what is trusted then; raises Invalid."""
    held = b""
    names = "format", "version", "level", "files", "input", "network", "bound", "samples", "about"
    content = objects(read(bundle / "proof.json"))
    *kind, level, files, inputs, record, bound, samples, about = fields(content, *names)
    known_kind = kind == ["onelip proof", 1] and (type(kind[1]), type(about)) == (int, str)
    need(known_kind, "another format or version")
    name_of_level = known(LEVELS, level, "kind")
    need(isinstance(files, dict) and "tensors.safetensors" in files, "files are asked")
    for name, digest in files.items():
        data = read(bundle / name) if name == Path(name).name else b""
        same = name == Path(name).name and hashlib.sha256(data).hexdigest() == digest
        need(same, f"file {name[:40]}: another digest")
        held = data if name == "tensors.safetensors" else held
    Work.left = work * (WORK + (len(held) << 16))
    tensors, shape = Tensors(held), shape_of(inputs)
    network, claim = Network(record, tensors, shape, say), number(bound)
    heads, trusted = LEVELS[name_of_level](level, network)
    if network.method is not None:
        METHODS[known(METHODS, network.method, "kind")](network, claim)
        network.constant = claim
    need(claim >= network.constant, "the network's constant may be larger than claimed")
    say(f"the network: constant <= {float(claim):.9g}")
    if samples is not None:
        check_samples(samples, network, heads, shape, say)
    return str(trusted)


def kinds() -> dict[str, Any]:
    """Let the files of ``kinds`` beside this one add to the tables of what is known."""
    found = {}
    for path in sorted((Path(__file__).parent / "kinds").glob("*.py")):
        spec: Any = importlib.util.spec_from_file_location(path.stem, path)
        found[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[path.stem])
        found[path.stem].register(sys.modules[__name__])
    return found


def read(path: Path) -> bytes:
    """Bytes of a file."""
    try:
        need(path.is_file(), f"{path.name}: no file")
        with path.open("rb") as file:
            data = file.read(path.stat().st_size + 1)
            need(len(data) <= path.stat().st_size < 1 << 32, f"{path.name}: it grows")
            return data
    except OSError as error:
        raise Invalid(f"{path.name}: {error.strerror}") from None


def main(arguments: list[str], name: str = "python check.py") -> int:
    """Check the bundle that is named; exit status 0 for VALID, 1 for INVALID."""
    bundle, work = (*arguments, "1")[:2] if arguments else ("-", "1")
    if len(arguments) > 2 or bundle.startswith("-") or not re.fullmatch("[1-9][0-9]{0,8}", work):
        print(f"usage: {name} BUNDLE [TIMES-AS-MUCH-WORK]", file=sys.stderr)
        return 2
    try:
        trusted = check(Path(bundle), work=int(work))
    except (Invalid, ValueError, TypeError, ArithmeticError, LookupError, MemoryError) as error:
        reason = str(error)[:200].encode("unicode_escape").decode()  # no name may write lines
        print(f"INVALID: {reason}")
        return 1
    print(f"VALID\n{trusted}")
    return 0


KINDS = kinds()
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
