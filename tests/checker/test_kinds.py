"""Values of further kinds against exact ones, and slopes against what was claimed of them."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
