"""Level float: radii of a network that rounds, as the page of the format says what an execution is.

Each sample is followed with the exact values there (a grid), with D, how far those at an attacked
input are from them, and with E, how far an execution is from those. A part with constant c makes
``c D`` and ``c E + R`` of D and E; R is what rounds inside, within D + E of the sample's vector.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

Rule = Callable[[int, Fraction, Fraction], tuple[Fraction, Fraction]]
"""From the number of a sample, D and E to D and E after a part."""

ASSUMED = """Taken on trust: this network is executed in {} with sums in {}, as
docs/proof-format.md says at level float: each operation is rounded correctly, sums are in any
order, there are no convolutions by Winograd or Fourier and no TF32; samples are what their owner
says; Python, and numpy's sums and products of integers, are right."""


def register(check: Any) -> None:
    """Add the level ``{"kind": "float", "numbers", "sums"}``."""
    check.LEVELS["float"] = partial(of_level, check)


def of_level(check: Any, record: Any, network: Any) -> tuple[dict[str, Any], str]:
    """Heads, and what is trusted; refuses what the level says nothing of."""
    formats, arithmetics = check.KINDS["sums"].FORMATS, check.KINDS["sums"].arithmetics
    _, *names = check.fields(record, "kind", "numbers", "sums")
    known = all(isinstance(name, str) and name in formats for name in names)
    check.need(known and names != ["float64", "float32"], "unknown numbers or sums")
    check.need(network.method is None, "no method is known at level float")
    rounding = Rounding(check, network.tensors, *arithmetics(*names))
    for name, a in network.tensors.known.items():
        check.need(
            rounding.holds(a), f"tensor {name[:40]}: a number is no {names[0]}, or subnormal"
        )
    for inner, kind, _, _, _, _, outer, skip, step in network.parts:
        rounding.know([*inner, *outer, *(skip or [])])
        known = kind["kind"] in ("leaky-relu", "sort", "max-pool")
        check.need(known, f"{kind['kind']}: nothing is known of it at level float")
        fits = step is None or rounding.holds(np.array(float(step)))
        check.need(fits, f"a step is no {names[0]}, or subnormal")
    rounding.know(network.last)
    heads = {name: partial(by_rounding, rounding) for name in ("network", "pairs")}
    return heads, ASSUMED.format(*names)


def by_rounding(rounding: "Rounding", network: Any, head: Any) -> Callable[..., str]:
    """Show radii by constants of differences and by rounding; the reason if one is too large."""
    around, classes = rounding.around(network, head), math.prod(network.outputs)

    def shown(x: Any, predicted: Any, claims: Any) -> str:
        claimed = [at for at, claim in enumerate(claims) if claim]
        if not claimed:
            return ""
        left = around(replace(x, ints=x.ints[claimed]))
        for place, at in enumerate(claimed):
            rounding.check.spend(classes << 19)
            for rival, (margin, constant) in left(place, predicted[at], claims[at]).items():
                if claims[at] * constant >= margin:
                    return f"{at}: the radius against {rival} is smaller than claimed"
        return ""

    return shown


class Rounding:
    """Rules of the parts of a network."""

    def __init__(self, check: Any, tensors: Any, numbers: Any, sums: Any) -> None:
        self.check, self.tensors, self.numbers = check, tensors, numbers
        self.sums = check.KINDS["sums"].Sums(check, numbers, sums)
        maps = check.MAPS
        self.rules: dict[Any, Callable[..., tuple[Any, Rule]]] = {
            **dict.fromkeys((maps["dense"], maps["convolution"], maps["adjoint"]), self.products),
            **{maps["take"]: self.moved, maps["scale"]: self.scaled},
            maps["exponential"]: self.exponential,
        }

    def holds(self, a: Any) -> bool:
        """Whether all are numbers of the format, none of them infinite or subnormal."""
        if a.dtype.kind != "f":
            return True
        self.check.spend(a.size << 8)
        a, dtype = np.abs(a.astype(np.float64)), self.numbers.dtype
        with np.errstate(all="ignore"):
            fits = a.astype(dtype).astype(np.float64) == a
        return bool((fits & (a < np.inf) & ((a == 0) | (a >= np.finfo(dtype).tiny))).all())

    def know(self, maps: Iterable[Any]) -> None:
        """Refuse maps of which the level says nothing."""
        known = all(type(linear) in self.rules for linear in maps)
        self.check.need(known, "nothing is known of a map at level float")

    def flushed(self, count: int) -> Fraction:
        """What so many numbers may lose where they are subnormal."""
        lost: Fraction = self.numbers.lost * self.sums.root(count)
        return lost

    def operation(self, length: Fraction, count: int) -> Fraction:
        """What an operation loses whose exact results have this length."""
        self.sums.fits(length)
        lost: Fraction = self.numbers.unit * length + self.flushed(count)
        return lost

    def operations(self, length: Fraction, count: int) -> Fraction:
        """What two in a row lose, or one by a number that is rounded."""
        self.sums.fits(length)
        unit = 2 * self.numbers.unit
        lost: Fraction = unit / (1 - unit) * length + 4 * self.flushed(count)
        return lost

    def products(self, linear: Any, x: Any) -> tuple[Any, Rule]:
        """A matrix, a convolution or its adjoint."""
        y, _, terms = self.sums.terms(linear, x)

        def rule(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            error = self.sums.error(terms, at, d + e, self.check.ONE)
            return linear.norm * d, linear.norm * e + error

        return y, rule

    def moved(self, linear: Any, x: Any) -> tuple[Any, Rule]:
        """Copies."""
        lost = self.flushed(math.prod(linear.outputs))
        return linear(x), lambda _, d, e: (linear.norm * d, linear.norm * e + lost)

    def scaled(self, linear: Any, x: Any) -> tuple[Any, Rule]:
        """A product, and perhaps a sum."""
        sizes, count = self.sums.lengths(x), math.prod(linear.outputs)
        shift = None if linear.shift is None else self.sums.lengths(linear.shift)[0]

        def rule(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            length = linear.norm * (sizes[at] + d + e)
            one, two = self.operation, self.operations
            error = one(length, count) if shift is None else two(length + shift, count)
            return linear.norm * d, linear.norm * e + error

        return linear(x), rule

    def exponential(self, linear: Any, x: Any) -> tuple[Any, Rule]:
        """Horner's rule, by lengths alone."""
        of, sizes, count = linear.of, self.sums.lengths(x), math.prod(linear.outputs)
        nothing = [self.check.ZERO] * len(sizes)
        wide, products = self.sums.extent(of)
        terms = self.check.KINDS["sums"].Terms(of, products - 1, wide, nothing, nothing, nothing)

        def rule(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            self.check.spend(linear.terms << 18)
            length = u = sizes[at] + d + e
            error = self.flushed(count)
            for i in range(linear.terms - 1, 0, -1):
                inside = of.norm * error + self.sums.error(terms, at, u + error, self.check.ONE)
                error = inside / i + self.operations((of.norm * u + inside) / i, count)
                u = self.check.upwards(length + of.norm * u / i)
                error = self.check.upwards(error + self.operation(u + error, count))
            return linear.norm * d, linear.norm * e + error

        return linear(x), rule

    def activated(self, part: Any, x: Any) -> tuple[Any, Rule]:
        """Products below 0, or what only chooses."""
        kind, act, steep = part[1], part[5], self.check.ZERO
        if "slopes" in kind:  # products by -1, 0 and 1 are exact
            slopes = np.abs(self.tensors.get(kind["slopes"])).reshape(-1)
            rest = slopes[(slopes != 0) & (slopes != 1)]
            steep = Fraction(float(rest.max(initial=0.0)))
        sizes, count = self.sums.lengths(x), math.prod(act.outputs)
        constant = max(act.high, -act.low)

        def rule(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            error = self.operation(steep * (sizes[at] + d + e), count)
            return constant * d, constant * e + error

        return act.apply(x), rule

    def through(self, maps: Iterable[Any], x: Any) -> tuple[Any, list[Rule]]:
        """Maps one after the other."""
        rules = []
        for linear in maps:
            self.check.spend(len(x.ints) << 20)
            x, rule = self.rules[type(linear)](linear, x)
            rules.append(rule)
        return x, rules

    def block(self, part: Any, x: Any) -> tuple[Any, Rule]:
        """A block on what was computed before it, which is within D + E of the sample's."""
        inner, _, _, _, claim, _, outer, skip, step = part
        check, centre = self.check, replace(x, error=self.check.ZERO)
        check.spend(len(x.ints) << 20)
        hidden, rules = self.through(inner, centre)
        hidden, rule = self.activated(part, hidden)
        stepped = step is not None
        end, more = self.stepped(outer[0], hidden, step) if stepped else self.through(outer, hidden)
        end = check.Grid.rounded([end.ints], end.exponent, end.error)
        end = end.times(check.Grid.of(np.array([-float(step)])), step) if stepped else end
        inside, added, around = [*rules, rule, *more], stepped or skip is not None, list[Rule]()
        if added:
            other, around = self.through(skip or [], centre)
            end = end.plus(other)
        sizes, count, start = self.sums.lengths(end), end.ints[0].size, x.ints[0].size

        def whole(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            away = d + e + x.error
            error = along(inside, at, away, self.flushed(start))[1]
            if added:
                error += along(around, at, away, self.flushed(start))[1]
                error += self.operation(sizes[at] + claim * away + error, count)
            return claim * d, claim * e + error

        return replace(end, error=check.upwards(end.error + claim * x.error)), whole

    def stepped(self, linear: Any, x: Any, step: Fraction) -> tuple[Any, list[Rule]]:
        """An adjoint and a product by the step, before or after; the image without the step."""
        y, _, terms = self.sums.terms(linear, x)
        sizes, norm = self.sums.lengths(x), linear.norm
        inputs, outputs = math.prod(linear.inputs), math.prod(linear.outputs)

        def rule(at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
            last = norm * e + self.sums.error(terms, at, d + e, self.check.ONE)
            last = step * last + self.operation(step * (terms.long[at] + norm * d + last), outputs)
            first = step * e + self.operation(step * (sizes[at] + d + e), inputs)
            first = norm * first + self.sums.error(terms, at, step * d + first, step)
            return step * norm * d, max(first, last)

        return y, [rule]

    def around(self, network: Any, head: Any) -> Callable[..., Any]:
        """For a batch: what a radius leaves of margins, and the constants of the differences."""
        check, sums, between = self.check, self.sums, self.check.constants(network, head)
        matrix = network.last[-1] if network.last else None
        matrix = matrix if type(matrix) is check.MAPS["dense"] else None
        before, twice = network.last[: -1 if matrix else None], sums.root(2)
        if matrix:
            alone = copy.copy(network)
            alone.body, alone.last = check.ONE, [matrix]
            apart, rows = check.constants(alone, "pairs"), sums.lengths(matrix.weight)

        def follow(x: Any) -> Callable[..., dict[int, tuple[Fraction, Fraction]]]:
            rules, start = list[Rule](), self.flushed(x.ints[0].size)
            for part in network.parts:
                x, rule = self.block(part, x)
                rules.append(rule)
            x, more = self.through(before, x)
            rules += more
            if matrix:
                x, s, terms = sums.terms(matrix, x)
            values, unit = x.ints.reshape(len(x.ints), -1).tolist(), check.two(x.exponent)

            def left(at: int, own: int, radius: Fraction) -> dict[int, tuple[Fraction, Fraction]]:
                d, e = along(rules, at, radius, start)
                last = matrix.norm * e + sums.error(terms, at, d + e, check.ONE) if matrix else e
                ends = entries(at, d + e) if matrix else []
                found = {}
                for rival in set(range(len(values[at]))) - {own}:
                    lost = twice * last
                    if matrix:
                        lost = min(lost, apart(own)[rival] * e + ends[own] + ends[rival])
                    margin = (values[at][own] - values[at][rival]) * unit - twice * x.error
                    found[rival] = margin - lost, between(own)[rival]
                return found

            def entries(at: int, away: Fraction) -> list[Fraction]:
                """What rounding does to each entry of the last matrix."""
                n, found = terms.additions, []
                flushed = self.flushed(math.prod(terms.linear.inputs))
                every = zip(s.ints[at].tolist(), values[at], rows, strict=True)
                for absolute, value, row in every:
                    most = abs(absolute) * check.two(s.exponent) + s.error
                    long = abs(value) * unit + x.error
                    magnitude = most + n * (most + long) / 2 + (1 + n) * row * away
                    size, lost = long + row * away, row * flushed
                    found.append(sums.rounded(n, magnitude, size, check.ONE, lost))
                return found

            return left

        return follow


def along(rules: Iterable[Rule], at: int, d: Fraction, e: Fraction) -> tuple[Fraction, Fraction]:
    """D and E after parts one after the other."""
    for rule in rules:
        d, e = rule(at, d, e)
    return d, e
