"""Values of further kinds against exact ones, and slopes against what was claimed of them."""

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import flint
import numpy as np
import pytest
from flint import arb

from onelip.checker import check
from tests.checker.test_hostile import proof, write

ARRAY = np.ndarray[Any, Any]


class Held:
    """Tensors by name, as the checker asks for them."""

    def __init__(self, folder: Path, **tensors: ARRAY) -> None:
        write(folder, proof([1], []), tensors)
        self.tensors = check.Tensors((folder / "tensors.safetensors").read_bytes())

    def activation(self, shape: tuple[int, ...], kind: str, **fields: Any) -> Any:
        """What the checker makes of a record."""
        make, *names = check.ACTIVATIONS[kind]
        return make(self.tensors, shape, *check.fields(fields, *names))


def within(found: Any, exact: list[Fraction]) -> Fraction:
    """Show that values lie within their error; the error."""
    values = [int(n) * check.two(found.exponent) for n in found.ints.reshape(-1)]
    square = sum((a - b) ** 2 for a, b in zip(values, exact, strict=True))
    assert square <= found.error**2
    return found.error


def fractions(a: ARRAY) -> list[Fraction]:
    return [Fraction(float(x)) for x in a.reshape(-1)]


def piecewise(x: Fraction, k: list[Fraction], s: list[Fraction], b: list[Fraction], v: Fraction):
    """The sum of the page, one number at a time."""
    y = v + s[0] * min(x - k[0], 0) + s[-1] * max(x - k[-1], 0)
    for i, (low, high) in enumerate(itertools.pairwise(k)):
        t = min(max(x, low), high) - low
        y += s[i + 1] * t + (b[i] * t * t / 2 if b else 0)
    return y


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("spread", [0, 8, 40, 900])
def test_pieces_are_exact_up_to_their_error(bent: bool, spread: int, tmp_path) -> None:
    rng = np.random.default_rng(spread + bent)
    for count in (1, 2, 5):

        def numbers(*shape: int) -> ARRAY:
            exponents = rng.integers(-spread, spread // 9 + 1, size=shape)
            return np.ldexp(rng.normal(size=shape), exponents)

        knots, slopes = np.sort(numbers(count, 3), axis=0), numbers(count + 1, 3)
        bends = numbers(count - 1, 3) if bent and count > 1 else None
        tensors = {"k": knots, "s": slopes, "v": numbers(3)}
        tensors |= {} if bends is None else {"b": bends}
        names = {"knots": "k", "slopes": "s", "bends": bends if bends is None else "b"}
        held = Held(tmp_path, **tensors)
        act = held.activation((3,), "piecewise", **names, value="v")
        x = np.concatenate([numbers(4, 3), knots[:2], 0 * knots[:1]])
        grid = check.Grid.of(x, check.VALUE)
        centre = check.Grid(grid.ints, grid.exponent)
        columns = [
            [[] if a is None else fractions(a[:, j]) for a in (knots, slopes, bends)]
            for j in range(3)
        ]
        values = fractions(tensors["v"])
        for row, ints in enumerate(centre.ints):
            one = check.Grid(ints[None], centre.exponent)
            exact = [
                piecewise(int(n) * check.two(centre.exponent), *columns[j], values[j])
                for j, n in enumerate(ints)
            ]
            error = within(act.apply(one), exact)
            if spread == 0:
                assert error < 2.0**-28, row
        ends = [s for _, s, _ in columns] + [
            [s[i + 1] + b[i] * (k[i + 1] - k[i]) for i in range(len(b))] for k, s, b in columns
        ]
        flat = list(itertools.chain(*ends))
        largest = [
            max(map(abs, [0, *itertools.chain(*part)])) for part in zip(*columns, strict=True)
        ]
        room = (largest[1] + 2 * largest[0] * largest[2]) / (1 << 40)
        assert min(flat) - room <= act.low <= min(flat)
        assert max(flat) <= act.high <= max(flat) + room


def refused(folder: Path, text: str, tensors: dict[str, ARRAY], shape: list[int], **act: Any):
    """A block with this activation is refused, for a reason with this text."""
    block = {"inner": [], "activation": act, "outer": [], "skip": None, "bound": "0x1p+0"}
    write(folder, proof(shape, [], blocks=[block]), tensors)
    with pytest.raises(check.Invalid, match=text):
        check.check(folder, say=lambda _: None)


def test_pieces_that_do_not_fit(tmp_path) -> None:
    one = {"k": np.zeros(1), "s": np.ones(2), "b": np.ones(1), "v": np.zeros(())}
    record = {"kind": "piecewise", "knots": "k", "slopes": "s", "bends": None, "value": "v"}
    for text, changes, fields in (
        ("order", {"k": np.array([1.0, 0.0]), "s": np.ones(3)}, {}),
        ("order", {"k": np.array([np.nan, 0.0]), "s": np.ones(3)}, {}),
        ("do not fit", {"k": np.zeros(())}, {}),
        ("do not fit", {"s": np.ones(3)}, {}),
        ("do not fit", {}, {"bends": "b"}),
        ("do not fit", {"k": np.zeros(5000), "s": np.ones(5001)}, {}),
        ("other numbers", {"k": np.zeros((1, 3)), "s": np.ones((2, 3)), "v": np.zeros(3)}, {}),
        ("constant", {"s": np.array([0.0, 1 + 2.0**-52])}, {}),
        ("constant", {"s": np.array([-1 - 2.0**-52, 1.0])}, {}),
        (
            "constant",
            {"k": np.arange(2.0), "s": np.array([0, 0.5, 0]), "b": np.array([0.5 + 2.0**-50])},
            {"bends": "b"},
        ),
    ):
        refused(tmp_path, text, one | changes, [4], **record | fields)


def _density(x: arb) -> arb:
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def _tanh_gate(x: arb) -> arb:
    return (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3)


SMOOTH = {
    "gelu": (
        lambda x: x * (-x / arb(2).sqrt()).erfc() / 2,
        lambda x: (-x / arb(2).sqrt()).erfc() / 2 + x * _density(x),
    ),
    "gelu-tanh": (
        lambda x: x * (1 + _tanh_gate(x).tanh()) / 2,
        lambda x: (
            (1 + _tanh_gate(x).tanh()) / 2
            + x
            * (1 - _tanh_gate(x).tanh() ** 2)
            * (2 / arb.pi()).sqrt()
            * (1 + 3 * arb("0.044715") * x * x)
            / 2
        ),
    ),
    "mish": (
        lambda x: x * (1 + x.exp()).log().tanh(),
        lambda x: (
            (1 + x.exp()).log().tanh()
            + x * (1 - (1 + x.exp()).log().tanh() ** 2) / (1 + (-x).exp())
        ),
    ),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
}
"""Functions and derivatives as balls."""


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("exponent", [-300, -60, -37, -30, 0, 40, 900])
def test_smooth_values_lie_within_their_error(kind: str, exponent: int, tmp_path) -> None:
    rng = np.random.default_rng(1)
    act = Held(tmp_path, x=np.ones(1)).activation((1,), kind)
    ints = rng.integers(1 - (1 << 37), 1 << 37, size=40) >> rng.integers(0, 37, size=40)
    flint.ctx.prec = 400
    for n in [0, 1, -1, *ints.tolist()]:
        x = check.Grid(np.array([[n]]), exponent)
        y = act.apply(x)
        value = arb(int(y.ints[0, 0])) * arb(2) ** y.exponent
        if exponent < 100:
            exact = SMOOTH[kind][0](arb(n) * arb(2) ** exponent)
        else:  # no ball is that long
            above = arb(n) * arb(2) ** exponent if n > 0 else arb(0)
            exact = arb((n > 0) - (n < 0)) if kind == "softsign" else above
        error = arb(y.error.numerator) / y.error.denominator
        assert abs(value - exact) <= error, n
        assert error < arb(2) ** -48 + arb(2) ** (exponent + 2)


@pytest.mark.parametrize("kind", ["gelu", "gelu-tanh", "mish"])
def test_slopes_of_the_format_hold_everywhere(kind: str, tmp_path) -> None:
    """By balls from -64 to 64; farther out slopes are those of infinity up to 2^-50."""
    act = Held(tmp_path, x=np.ones(1)).activation((1,), kind)
    flint.ctx.prec = 200
    low, high = (arb(end.numerator) / end.denominator for end in (act.low, act.high))
    todo, count = [(Fraction(-64), Fraction(64))], 0
    while todo:
        start, end = todo.pop()
        middle, radius = (start + end) / 2, (end - start) / 2
        ball = arb(float(middle), float(radius))
        slope = SMOOTH[kind][1](ball)
        count += 1
        assert count < 40000
        if not (slope >= low and slope <= high):
            assert radius > 2.0**-30, middle
            todo += [(start, middle), (middle, end)]
    for end in (-64, 64):
        assert abs(SMOOTH[kind][1](arb(end)) - (end > 0)) < arb(2) ** -50


@pytest.mark.parametrize("of", ["elu", "softplus", "gelu", "softsign"])
def test_scaled_values_lie_within_their_error(of: str, tmp_path) -> None:
    rng = np.random.default_rng(2)
    functions = {
        "elu": lambda x: x if x > 0 else x.exp() - 1,
        "softplus": lambda x: (1 + x.exp()).log(),
    } | {name: function for name, (function, _) in SMOOTH.items()}
    flint.ctx.prec = 300
    for size in (1e-3, 1.0, 30.0):
        a, c, d = rng.normal(size=(3, 4)) * size
        d = c if of == "softplus" else d
        names = {"inner": "a", "above": "c", "below": "d"}
        act = Held(tmp_path, a=a, c=c, d=d).activation((4,), "scaled", of=of, **names)
        x = check.Grid.of(rng.normal(size=(1, 4)), check.VALUE)
        y = act.apply(check.Grid(x.ints, x.exponent))
        square = arb(0)
        for j in range(4):
            u = arb(float(a[j])) * int(x.ints[0, j]) * arb(2) ** x.exponent
            exact = arb(float(c[j] if u > 0 else d[j])) * functions[of](u)
            square += (arb(int(y.ints[0, j])) * arb(2) ** y.exponent - exact) ** 2
        assert square.sqrt() <= arb(y.error.numerator) / y.error.denominator
        assert y.error < 2.0**-30 * max(size**2, 1)
        g = check.ACTIVATIONS[of][0](None, (4,))
        corners = [
            p * Fraction(float(q)) * Fraction(float(r))
            for p in (g.low, g.high)
            for q in (a.min(), a.max())
            for r in (min(c.min(), d.min()), max(c.max(), d.max()))
        ]
        assert act.low <= min(corners)
        assert act.high >= max(corners)
        assert act.high - act.low < (max(corners) - min(corners)) * (1 + Fraction(1, 1 << 40))


def test_scales_that_do_not_fit(tmp_path) -> None:
    tensors = {"a": np.array(1.0), "b": np.array(2.0), "n": np.array(np.inf), "w": np.ones(3)}
    record = {"kind": "scaled", "of": "elu", "inner": "a", "above": "a", "below": "a"}
    for text, fields in (
        ("not 0 at 0", {"of": "softplus", "below": "b"}),
        ("not 0 at 0", {"of": "sigmoid", "above": "b"}),
        ("unknown of", {"of": "scaled"}),
        ("unknown of", {"of": "leaky-relu"}),
        ("unknown of", {"of": {"kind": "elu"}}),
        ("infinite", {"inner": "n"}),
        ("other numbers", {"inner": "w"}),
        ("other shapes", {"below": "e"}),
        ("constant", {"inner": "b"}),
        ("constant", {"below": "b"}),
        ("constant", {"above": "b"}),
    ):
        more = tensors | {"e": np.ones(1)}
        refused(tmp_path, text, more, [4], **record | fields)


@pytest.mark.parametrize("of", ["maximum", "length"])
def test_pools_lie_within_their_error(of: str, tmp_path) -> None:
    rng = np.random.default_rng(3)
    index = rng.integers(-1, 12, size=(7, 9))
    index[0], index[1], index[:, 0] = -1, 3, range(7)
    record = {"of": of, "index": "i", "outputs": [7, 1]}
    act = Held(tmp_path, i=index).activation((3, 4), "pool", **record)
    most = Fraction(max(int((index == k).sum()) for k in range(12)))
    assert most <= act.high**2 <= most * (1 + Fraction(1, 1 << 50))
    for scale in (-300, 0, 300):
        x = check.Grid.of(np.ldexp(rng.normal(size=(5, 3, 4)), scale), check.VALUE)
        y = act.apply(check.Grid(x.ints, x.exponent))
        assert y.ints.shape == (5, 7, 1)
        flint.ctx.prec, square = 200, arb(0)
        for sample, values in zip(x.ints.reshape(5, 12).tolist(), y.ints.tolist(), strict=True):
            total = arb(0)
            for row, (value,) in zip(index.tolist(), values, strict=True):
                group = [sample[k] for k in row if k >= 0]
                exact = max(group) if of == "maximum" else arb(sum(n * n for n in group)).sqrt()
                total += (arb(value) * arb(2) ** (y.exponent - x.exponent) - exact) ** 2
            square = max(square, total)
        error = y.error / check.two(x.exponent)
        assert square.sqrt() <= arb(error.numerator) / error.denominator
        assert error < 200


def test_groups_that_do_not_fit(tmp_path) -> None:
    record = {"kind": "pool", "of": "length", "index": "i", "outputs": [2]}
    for text, index, fields in (
        ("out of range", np.array([[0], [4]]), {}),
        ("out of range", np.array([[0], [-2]]), {}),
        ("empty", np.array([[0, 1], [-1, -1]]), {}),
        ("too large", np.zeros((2, (1 << 19) + 1), np.int64), {}),
        ("out of range", np.array([[0], [1], [2]]), {}),
        ("other numbers", np.array([0, 1]), {}),
        ("other numbers", np.array([[0.0], [1.0]]), {}),
        ("unknown of", np.array([[0], [1]]), {"of": "sum"}),
        ("no number", np.array([[0], [1]]), {"outputs": [2, 0]}),
        ("constant", np.array([[0, 1], [1, 2]]), {}),
        ("constant", np.array([[0, 0], [1, 2]]), {}),
    ):
        refused(tmp_path, text, {"i": index}, [4], **record | fields)


def _folded(point: tuple[arb, arb], rays: list[arb], peaks: list[arb]) -> tuple[arb, arb]:
    """The highest tent, by the angle of the point."""
    x, y = point
    tents = []
    for ray, peak in zip(rays, peaks, strict=True):
        dot, across = x * ray.cos() + y * ray.sin(), x * ray.sin() - y * ray.cos()
        tents.append(peak - arb.atan2(abs(across), dot))
    best = max(tents, key=float)
    length = (x * x + y * y).sqrt()
    return length * best.cos(), length * best.sin()


def _ray_distance(point: tuple[arb, arb], angle: arb) -> arb:
    x, y = point[0], abs(point[1])
    c, s = angle.cos(), abs(angle.sin())
    far = (x * x + y * y).sqrt()
    return c * y - s * x if c * x + s * y >= 0 else (far if c > 0 else -far)


def _off(found: Any, exponent: int, exact: list[arb]) -> arb:
    """Distance of integers to balls, in units of 2^exponent."""
    values = found.ints.reshape(-1).tolist()
    pairs = zip(values, exact, strict=True)
    squares = [(arb(n) * arb(2) ** (found.exponent - exponent) - y) ** 2 for n, y in pairs]
    return sum(squares, arb(0)).sqrt()


def _points(rng: np.random.Generator, count: int) -> Any:
    """A sample of points ``(2, 1, count)``, some on axes, diagonals and at 0."""
    ints = rng.integers(-(1 << 37), 1 << 37, size=(1, 2, 1, count))
    ints[..., :6] = np.array([[0, 5, -7, 0, 0, 9], [0, 0, 0, 3, -2, 9]])[:, None] << 30
    return ints


@pytest.mark.parametrize("exponent", [-200, -37, 100])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_folds_lie_within_their_error(order: int, exponent: int, tmp_path) -> None:
    rng = np.random.default_rng(order)
    r, p = 9 * rng.normal(size=(2, order, 1))
    names = {"rays": "r", "peaks": "p"}
    act = Held(tmp_path, r=r, p=p).activation((2, 40), "fold", **names)
    ints = _points(rng, 40)[0].reshape(1, 2, 40)
    y = act.apply(check.Grid(ints, exponent))
    flint.ctx.prec = 300
    angles = [[arb(float(a)) for a in part[:, 0]] for part in (r, p)]
    found = [_folded((arb(x), arb(z)), *angles) for x, z in zip(*ints[0].tolist(), strict=True)]
    exact = [x for x, _ in found] + [z for _, z in found]
    error = y.error / check.two(exponent)
    assert _off(y, exponent, exact) <= arb(error.numerator) / error.denominator
    assert error < 40


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, -2.2, 3.1, 1000.0])
def test_distances_to_rays_lie_within_their_error(angle: float, tmp_path) -> None:
    rng = np.random.default_rng(5)
    act = Held(tmp_path, a=np.array([angle])).activation((2, 60), "rays", angles="a")
    ints = _points(rng, 60)[0].reshape(1, 2, 60)
    y = act.apply(check.Grid(ints, -30))
    flint.ctx.prec = 300
    points = zip(*ints[0].tolist(), strict=True)
    exact = [_ray_distance((arb(x), arb(z)), arb(angle)) for x, z in points]
    error = y.error / check.two(-30)
    assert _off(y, -30, exact) <= arb(error.numerator) / error.denominator
    assert error < 40


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e6])
def test_distances_to_polygons_lie_within_their_error(count: int, size: float, tmp_path) -> None:
    rng = np.random.default_rng(6)
    corners = rng.normal(size=(count, 2, 1)) * size
    if count == 4:
        corners[2] = corners[1]
    act = Held(tmp_path, c=corners).activation((2, 30), "polygon", corners="c")
    ints = _points(rng, 30)[0].reshape(1, 2, 30)
    y = act.apply(check.Grid(ints, -37))
    exact = []
    flint.ctx.prec = 300
    for x, z in zip(*ints[0].tolist(), strict=True):
        point = [n * check.two(-37) for n in (x, z)]
        ends = [fractions(corner) for corner in corners]
        found = []
        for start, end in itertools.pairwise(ends) if count > 1 else [(ends[0], ends[0])]:
            along = [b - a for a, b in zip(start, end, strict=True)]
            square = sum(a * a for a in along)
            share = sum((q - a) * b for q, a, b in zip(point, start, along, strict=True))
            share = min(max(share / square, 0), 1) if square else 0
            near = [a + share * b for a, b in zip(start, along, strict=True)]
            found.append(sum((q - a) ** 2 for q, a in zip(point, near, strict=True)))
        least = min(found) / check.two(-74)
        exact.append((arb(least.numerator) / least.denominator).sqrt())
    error = y.error / check.two(-37)
    assert _off(y, -37, exact) <= arb(error.numerator) / error.denominator
    assert error < 60 * max(size, 1)


def test_planes_that_do_not_fit(tmp_path) -> None:
    tensors = {"a": np.zeros(2), "b": np.zeros((1, 2)), "c": np.zeros((3, 2, 2))}
    tensors |= {"far": np.full((1, 2), 1025.0), "nan": np.array([[0.0, np.nan]])}
    for text, record in (
        ("one angle a pair", {"kind": "rays", "angles": "one"}),
        ("other numbers", {"kind": "rays", "angles": "b"}),
        ("too large", {"kind": "fold", "rays": "b", "peaks": "far"}),
        ("too large", {"kind": "fold", "rays": "nan", "peaks": "b"}),
        ("as many", {"kind": "fold", "rays": "b", "peaks": "two"}),
        ("one angle a pair", {"kind": "fold", "rays": "odd", "peaks": "odd"}),
        ("corners of each", {"kind": "polygon", "corners": "odd3"}),
        ("corners of each", {"kind": "polygon", "corners": "long3"}),
        ("other numbers", {"kind": "polygon", "corners": "b"}),
        ("unknown or missing", {"kind": "polygon", "corners": "c", "signed": True}),
    ):
        more = {"one": np.zeros(1), "two": np.zeros((2, 2)), "odd": np.zeros((1, 3))}
        more |= {"odd3": np.zeros((3, 3, 2)), "long3": np.zeros((3, 2, 3))}
        refused(tmp_path, text, tensors | more, [4], **record)
