r"""Truncated exponentials of skew convolutions, recognised in a graph: :math:`\sum_j A^j / j!`.

Written out by Horner's rule, an exported SOC layer is a dozen convolutions and sums, whose product
of norms is far above what the series stretches. Sums of one map's powers are polynomials of it; if
the map is skew, number by number, and the coefficients are those of the exponential up to rounding,
the proof is that of the layer (``norms/exponential.py``), plus what the rounding can do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from onelip.chains import (
    BoundedSum,
    Convolution,
    LinearMap,
    Reshape,
    Scale,
    composed,
    identity,
)
from onelip.chains.value import Value, shared_maps
from onelip.layers.gradient_step import mirrored
from onelip.norms.exponential import truncated_exponential
from onelip.norms.rounding import upward
from onelip.reading.graphs.gradient_steps import pads_as_adjoint

_CLOSE = Fraction(1, 10**4)  # relative, of a coefficient whose factors were rounded
_UNIT = Fraction(1, 2**53)  # what one rounding in float64 may change, relative


@dataclass(frozen=True)
class Polynomial(BoundedSum):
    """A sum of powers of one map, with the constant that is known of it, if one is.

    Attributes:
        base: the map.
        coefficients: by power.
        spread: by how much each may be off.
    """

    base: Convolution | None = None
    coefficients: tuple[Fraction, ...] = ()
    spread: tuple[Fraction, ...] = ()

    @property
    def terms(self) -> int:
        """Number of coefficients."""
        return len(self.coefficients)


def polynomial(first: Value, second: Value) -> Value | None:
    """The sum of two values of one point, where it is a polynomial of a skew convolution."""
    same = shared_maps(first, second)
    parts = [_parsed(value.maps[same:]) for value in (first, second)]
    bases = [part.base for part in parts if part is not None and part.base is not None]
    if None in parts or not bases or not all(_equal(bases[0], other) for other in bases):
        return None
    base, shape = bases[0], first.maps[same - 1].outputs if same else first.point.shape
    if base.inputs != shape or not _is_skew(base):
        return None
    length = max(len(part.coefficients) for part in parts if part is not None)
    coefficients = _total([part.coefficients for part in parts if part], length)
    spread = _total([part.spread for part in parts if part], length)
    maps = tuple(
        composed(value.maps[same:]) if value.maps[same:] else identity(shape)
        for value in (first, second)
    )
    bound = _exponential_bound(base, coefficients, spread)
    total = Polynomial(maps, bound, base, coefficients, spread)
    return Value(first.point, (*first.maps[:same], total))


def _parsed(maps: Sequence[LinearMap]) -> Polynomial | None:
    """Maps one after the other as one polynomial; None for anything else."""
    base: Convolution | None = None
    coefficients: list[Fraction] = [Fraction(1)]
    spread: list[Fraction] = [Fraction(0)]
    for place, linear in enumerate(maps):
        if isinstance(linear, Polynomial) and place == 0:
            base = linear.base
            coefficients, spread = list(linear.coefficients), list(linear.spread)
        elif isinstance(linear, Convolution) and (base is None or _equal(base, linear)):
            base = linear
            coefficients, spread = [Fraction(0), *coefficients], [Fraction(0), *spread]
        elif isinstance(linear, Scale) and linear.factor.numel() == 1 and linear.shift is None:
            factor = Fraction(float(linear.factor))
            off = abs(factor) * _UNIT * linear.operations
            spread = [
                s * (abs(factor) + off) + abs(c) * off
                for s, c in zip(spread, coefficients, strict=True)
            ]
            coefficients = [c * factor for c in coefficients]
        elif not (isinstance(linear, Reshape) and linear.inputs == linear.outputs):
            return None
    return Polynomial((), None, base, tuple(coefficients), tuple(spread))


def _total(rows: Sequence[Sequence[Fraction]], length: int) -> tuple[Fraction, ...]:
    return tuple(sum((row[i] for row in rows if i < len(row)), Fraction(0)) for i in range(length))


def _equal(one: Convolution, other: Convolution) -> bool:
    settings = ("inputs", "stride", "padding", "dilation", "groups", "circular")
    same = all(getattr(one, name) == getattr(other, name) for name in settings)
    return same and torch.equal(one.weight, other.weight)


def _is_skew(linear: Convolution) -> bool:
    if linear.bias is not None or linear.inputs != linear.outputs:
        return False
    adjoint = pads_as_adjoint(linear, linear)
    return adjoint and torch.equal(linear.weight, -mirrored(linear.weight))


def _exponential_bound(
    base: Convolution, coefficients: Sequence[Fraction], spread: Sequence[Fraction]
) -> Tensor | None:
    """Bound of the truncated exponential, plus that of the error of its coefficients."""
    exact = [Fraction(1, math.factorial(k)) for k in range(len(coefficients))]
    off = [abs(c - e) + s for c, e, s in zip(coefficients, exact, spread, strict=True)]
    if any(o > e * _CLOSE for o, e in zip(off, exact, strict=True)):
        return None
    norm = base.norm()
    size = Fraction(float(norm))
    more = float(sum((o * size**k for k, o in enumerate(off)), Fraction(0)))
    bound = truncated_exponential(norm, len(coefficients))
    return upward(bound + torch.tensor(more, dtype=torch.float64), 4)
