"""Small chains as dense layers, run forward with a bound of what rounding does to the result."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.slopes import known_activation
from onelip.bounds.neighbourhood.sorted_pairs import folded
from onelip.bounds.products.matrix import written_out
from onelip.chains import (
    Chain,
    Composition,
    Elementwise,
    LinearMap,
    Scale,
    Shape,
    Sum,
)
from onelip.errors import NotApplicableError
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward

LARGEST = 2**23
"""Entries of a matrix, at most."""

_ELSEWHERE = 2.0**-32  # relative error that torch is trusted to keep below where it is not exact
_SHIFTS = 2.0**20  # of a shift that was computed: no larger than this many of its factor


class Point(NamedTuple):
    """Computed vectors, ``(batch, size)``, and how far off they may be."""

    values: Tensor
    entries: Tensor  # (batch, size), the error of each entry
    error: Tensor  # (batch,), Euclidean


@dataclass(frozen=True)
class Affine:
    """``matrix @ x + offset``.

    Attributes:
        matrix: float64.
        error: Frobenius norm of what the matrix may be off by.
        norm: of the exact matrix, spectral; proved.
        lengths: of its rows; proved.
        offset: the image of 0.
        offset_error: Euclidean norm of what the offset may be off by.
    """

    matrix: Tensor
    error: Tensor
    norm: Tensor
    lengths: Tensor
    offset: Tensor
    offset_error: Tensor

    @classmethod
    def of(cls, linear: LinearMap) -> "Affine":
        """Write an exact map out.

        Raises:
            NotApplicableError: its matrix is too large.
        """
        if linear.rows * linear.columns > LARGEST:
            raise NotApplicableError(
                f"a layer is a matrix of {linear.rows} x {linear.columns}, too large for one bound "
                "per sample: use onelip.bounds.liplt"
            )
        matrix, error = written_out(linear)
        norm = linear.norm()
        norm = each(matrix[None], error[None])[0] if norm is None else norm
        lengths = upward(frobenius(matrix[:, None]) + error, 1)
        offset, offset_error = _offset(linear)
        return cls(matrix, error, norm, lengths, offset.flatten(), offset_error)

    def forward(self, point: Point) -> Point:
        """The image, with what rounding adds to the error."""
        columns = self.matrix.shape[1]
        values = point.values @ self.matrix.mT + self.offset
        sizes = upward(point.values.abs() @ self.matrix.abs().mT + self.offset.abs(), columns + 4)
        length = frobenius(point.values[:, None])[:, None]
        new = gamma(columns + 3) * sizes + self.error * length + self.offset_error
        new = upward(new, 8) + columns * UNDERFLOW
        error = upward(self.norm * point.error + frobenius(new[:, None]), 4)
        return Point(values, upward(self.lengths * point.error[:, None] + new, 4), error)


@dataclass(frozen=True)
class Layer:
    """``skip(x) + outer(nonlinearity(inner(x)))``."""

    inner: Affine
    nonlinearity: Elementwise
    shape: Shape
    outer: Affine | None
    skip: Affine | None

    def behind(self, point: Point, before: Point) -> Point:
        """The layer's output, from its input and what ``inner`` makes of it."""
        constant = self.nonlinearity.constant
        shaped = before.values.unflatten(1, self.shape)
        values = self.nonlinearity.module(shaped).flatten(1)
        known = known_activation(self.nonlinearity.module)
        if known is not None and known.roundings is not None:
            new = 2 * UNIT * values.abs() + UNDERFLOW
        else:
            new = upward(_ELSEWHERE * (values.abs() + constant * before.values.abs()), 4)
        error = upward(constant * before.error + frobenius(new[:, None]), 4)
        hidden = Point(values, upward(constant * before.entries + new, 2), error)
        if self.outer is not None:
            hidden = self.outer.forward(hidden)
        return hidden if self.skip is None else _sum([hidden, self.skip.forward(point)])


def layers(chain: Chain) -> tuple[list[Layer], Affine]:
    """Write a chain out.

    Args:
        chain: its activations are elementwise or sort pairs.

    Raises:
        NotApplicableError: another activation, or a layer that is too large.
    """
    exact = chain.exact()
    found = []
    for block in map(folded, exact.blocks):
        assert isinstance(block.nonlinearity, Elementwise)
        maps = (block.inner, block.outer, block.skip)
        inner, outer, skip = (None if m is None else Affine.of(m) for m in maps)
        assert inner is not None
        found.append(Layer(inner, block.nonlinearity, block.inner.outputs, outer, skip))
    return found, Affine.of(exact.last)


def _offset(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """The image of 0, and the Euclidean norm of its error."""
    zero = torch.zeros((), dtype=torch.float64)
    if isinstance(linear, Composition):
        value, error = torch.zeros(1, *linear.inputs).double(), zero
        for part in linear.maps:
            value, error = _through(part, value, error)
        return value, error
    if isinstance(linear, Sum):
        parts = [_offset(part) for part in linear.maps]
        values = torch.stack([value for value, _ in parts])
        lost = len(parts) * UNIT * frobenius(values.flatten()[None])
        return values.sum(0), upward(
            torch.stack([e for _, e in parts]).sum() + lost * len(parts), 8
        )
    value = linear.affine(torch.zeros(1, *linear.inputs, dtype=torch.float64))
    if isinstance(linear, Scale) and linear.operations and linear.shift is not None:
        size = frobenius(value.flatten()[None]) + _SHIFTS * linear.norm() * math.sqrt(linear.rows)
        return value, upward(gamma(2 * linear.operations + 4) * size, 8)
    return value, zero


def _through(linear: LinearMap, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The image of a vector that may be off by an error."""
    norm = linear.norm()
    if norm is None:
        before = Point(value.flatten(1), torch.zeros_like(value.flatten(1)), error[None])
        behind = Affine.of(linear).forward(before)
        return behind.values.unflatten(1, linear.outputs), behind.error[0]
    own, new = _offset(linear)
    total = linear(value) + own
    lost = linear.rounding * frobenius(value.flatten()[None]) + linear.underflow
    lost = lost + 2 * UNIT * frobenius(total.flatten()[None])
    return total, upward(norm * error + new + lost, 8)


def _sum(points: list[Point]) -> Point:
    first, second = points
    values = first.values + second.values
    new = 2 * UNIT * values.abs()
    error = upward(first.error + second.error + frobenius(new[:, None]), 4)
    return Point(values, upward(first.entries + second.entries + new, 4), error)
