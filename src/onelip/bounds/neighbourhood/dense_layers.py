"""Small chains as dense layers, run forward with a bound of the rounding error."""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.maxima import elementwise_blocks
from onelip.bounds.neighbourhood.slopes import known_activation
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
"""Largest number of entries of a matrix that is written out."""

_ELSEWHERE = 2.0**-32  # relative error that torch is trusted to keep below where it is not exact
_SHIFTS = 2.0**20  # a computed shift is at most this many times the norm of its factor


class Point(NamedTuple):
    """Computed vectors, ``(batch, size)``, with bounds of their errors."""

    values: Tensor
    entries: Tensor  # (batch, size), the error of each entry
    error: Tensor  # (batch,), Euclidean


@dataclass(frozen=True)
class Affine:
    """Affine map ``matrix @ x + offset``, written out.

    Attributes:
        matrix: float64.
        error: bound of the Frobenius norm of the matrix's error.
        norm: proved spectral norm of the exact matrix.
        lengths: proved norms of its rows.
        offset: the image of 0.
        offset_error: bound of the Euclidean norm of the offset's error.
    """

    matrix: Tensor
    error: Tensor
    norm: Tensor
    lengths: Tensor
    offset: Tensor
    offset_error: Tensor

    @classmethod
    def of(cls, linear: LinearMap) -> "Affine":
        """Write an exact map out as a matrix and an offset.

        Raises:
            NotApplicableError: its matrix is too large.
        """
        if linear.rows * linear.columns > LARGEST:
            raise NotApplicableError(
                f"a layer is a matrix of {linear.rows} x {linear.columns}, too large for one bound "
                "per sample: use onelip.bounds.LipLT()"
            )
        matrix, error = written_out(linear)
        norm = linear.norm()
        norm = each(matrix[None], error[None])[0] if norm is None else norm
        lengths = upward(frobenius(matrix[:, None]) + error, 1)
        offset, offset_error = _offset(linear)
        return cls(matrix, error, norm, lengths, offset.flatten(), offset_error)

    def forward(self, point: Point) -> Point:
        """Compute ``matrix @ x + offset``, with the rounding added to the error."""
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
    """Dense layer ``skip(x) + outer(nonlinearity(inner(x)))``.

    Attributes:
        inner: the affine map in front of the nonlinearity.
        nonlinearity: elementwise.
        shape: of what the nonlinearity takes.
        outer: the affine map after it.
        skip: the affine map around all.
        constant: proved Lipschitz constant of the layer, everywhere.
    """

    inner: Affine
    nonlinearity: Elementwise
    shape: Shape
    outer: Affine | None
    skip: Affine | None
    constant: Tensor

    def behind(self, point: Point, before: Point) -> Point:
        """Return the layer's output from its input and the output of ``inner``.

        An error of the input grows by the constant of the layer at most, which may be far below
        what its maps do one by one: in a deep residual network this is what keeps errors small.
        """
        found = self._after(point, before)
        known = Point(point.values, 0 * point.entries, 0 * point.error)
        new = self._after(known, self.inner.forward(known)).error
        error = torch.fmin(found.error, upward(self.constant * point.error + new, 2))
        return Point(found.values, torch.fmin(found.entries, error[:, None]), error)

    def _after(self, point: Point, before: Point) -> Point:
        """Return the output with errors that go from map to map."""
        constant = self.nonlinearity.constant
        shaped = before.values.unflatten(1, self.shape)
        values = self.nonlinearity.module(shaped).flatten(1)
        known = known_activation(self.nonlinearity.module)
        if known is not None and known.roundings is not None:
            # Few roundings, none of a difference: the error is relative to the result.
            new = 2 * UNIT * values.abs() + UNDERFLOW
        else:
            new = upward(_ELSEWHERE * (values.abs() + constant * before.values.abs()), 4)
        error = upward(constant * before.error + frobenius(new[:, None]), 4)
        hidden = Point(values, upward(constant * before.entries + new, 2), error)
        if self.outer is not None:
            hidden = self.outer.forward(hidden)
        return hidden if self.skip is None else _sum([hidden, self.skip.forward(point)])


def layers(chain: Chain) -> tuple[list[Layer], Affine]:
    """Write a chain out as dense layers and a last affine map.

    Args:
        chain: its activations are elementwise, sort pairs or take maxima over windows.

    Raises:
        NotApplicableError: another activation, or a layer that is too large.
    """
    exact = chain.exact()
    found = []
    for block in itertools.chain(*map(elementwise_blocks, exact.blocks)):
        assert isinstance(block.nonlinearity, Elementwise)
        maps = (block.inner, block.outer, block.skip)
        inner, outer, skip = (None if m is None else Affine.of(m) for m in maps)
        assert inner is not None
        steepest = inner.norm * block.nonlinearity.constant
        steepest = steepest if outer is None else steepest * outer.norm
        steepest = upward(steepest if skip is None else steepest + skip.norm, 4)
        if block.constant is not None:
            steepest = steepest.clamp_max(block.constant)
        shape = block.inner.outputs
        found.append(Layer(inner, block.nonlinearity, shape, outer, skip, steepest))
    return found, Affine.of(exact.last)


def _offset(linear: LinearMap) -> tuple[Tensor, Tensor]:
    """Return the image of 0, and a bound of the Euclidean norm of its error."""
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
    """Return the image of a vector with an error, and a bound of the image's error."""
    norm = linear.norm()
    if norm is None:
        before = Point(value.flatten(1), torch.zeros_like(value.flatten(1)), error[None])
        after = Affine.of(linear).forward(before)
        return after.values.unflatten(1, linear.outputs), after.error[0]
    own, new = _offset(linear)
    total = linear(value) + own
    lost = linear.rounding * frobenius(value.flatten()[None]) + linear.underflow
    lost = lost + 2 * UNIT * frobenius(total.flatten()[None])
    return total, upward(norm * error + new + lost, 8)


def _sum(points: list[Point]) -> Point:
    """Add two points, with the rounding of the sum."""
    first, second = points
    values = first.values + second.values
    new = 2 * UNIT * values.abs()
    error = upward(first.error + second.error + frobenius(new[:, None]), 4)
    return Point(values, upward(first.entries + second.entries + new, 4), error)
