r"""Rounding in one part of a network: the arithmetic, and the form of the rules.

A part with the exact function f is followed with two numbers, a bound of the exact vector and one
of the distance between it and the computed vector. A rule adds what happens inside the part,

.. math:: |\hat f(x) - f(x)| \le \gamma_n |\text{terms}|,

where n counts the operations on the way of each term to the result and :math:`|\text{terms}|` is
the Euclidean norm of the sums of absolute values of what is added (Higham, 2002, section 3.1).

Sums of products have a sharper rule (``Arithmetic.summation``). Bounds are numbers for all inputs
up to a length, or tensors with one number per sample: then a vector near the exact one is known,
too, and rules may look at it (``Reference``).
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from onelip.errors import NonFiniteError
from onelip.norms.rounding import frobenius

Shape = tuple[int, ...]

Size = float | Tensor
"""A bound for all inputs in reach, or one per sample: ``(batch,)`` float64 on the CPU."""

ABOVE = 1 + 2.0**-40
"""Covers the rounding of a thousand operations of non-negative numbers in float64."""


@dataclass(frozen=True)
class Arithmetic:
    """Floating-point arithmetic of one dtype.

    Attributes:
        unit: the round-off u: an operation returns its exact result times ``1 + d``, ``|d| <= u``.
        lost: more than an operation can lose to underflow beside that, flushed to zero or not.
        largest: the largest finite number.
    """

    unit: float
    lost: float
    largest: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Self:
        """Arithmetic of float32 or float64."""
        info = torch.finfo(dtype)
        return cls(info.eps / 2, 4 * info.tiny, info.max)

    def gamma(self, operations: int) -> float:
        """Upper bound of the relative error of so many operations in a row."""
        total = operations * self.unit
        if total > 0.5:
            raise NonFiniteError(f"nothing is known of sums of {operations} numbers in this dtype")
        return total / (1 - total) * ABOVE

    def rounding(self, operations: int, magnitude: Size, count: int) -> Size:
        """Error of a vector whose entries are sums of products.

        Args:
            operations: on the way of each term to the result.
            magnitude: Euclidean norm of the sums of the absolute terms.
            count: entries of the vector.

        Raises:
            NonFiniteError: a sum, or a part of one, may overflow.
        """
        off = self.gamma(operations) * magnitude + 2 * operations * self.lost * math.sqrt(count)
        self.check(4 * (magnitude + off))  # what is on the way may be a few times as large
        return off * ABOVE

    def summation(self, additions: int, terms: Size, peak: Size, count: int) -> Size:
        r"""Error of a vector whose entries are sums of products, for every order of summation.

        Each product is rounded at most once, and each addition adds at most u times its own result,
        a sum of some of the terms. With m the larger of the positive terms and of the negative
        ones, no such sum is larger than m and all errors e together, so that
        :math:`e \le u s + n u (m + e)`, with s the sum of all absolute terms.

        Args:
            additions: n, to one entry; adding 0 is none.
            terms: Euclidean norm of the s of all entries.
            peak: Euclidean norm of their m: at most half of the norm of ``s`` and of the result.
            count: entries of the vector.

        Raises:
            NonFiniteError: a sum, or a part of one, may overflow.
        """
        off = self.gamma(additions + 1) / (additions + 1) * terms + self.gamma(additions) * peak
        off = off + 2 * (additions + 1) * self.lost * math.sqrt(count)
        self.check(4 * (terms + off))
        return off * ABOVE

    def check(self, magnitude: Size) -> None:
        """Refuse numbers that may overflow.

        Raises:
            NonFiniteError: they may.
        """
        most = largest(magnitude)
        if not most * ABOVE <= self.largest:
            raise NonFiniteError(
                f"numbers up to {most:.3g} may overflow, the largest is {self.largest:.3g}: "
                "smaller weights, a smaller reach, or model.double()"
            )


def largest(size: Size) -> float:
    """Return the largest of some bounds; NaN if one is NaN, 0 of none."""
    if isinstance(size, Tensor):
        return float(size.max()) if size.numel() else 0.0
    return size


@dataclass(frozen=True)
class Reference:
    """Vectors in float64 that are known, one per sample, and how far the exact ones may be.

    Attributes:
        point: ``(batch, *shape)`` float64 on the CPU.
        off: ``(batch,)``, the exact vectors of the samples themselves are no farther from them.
        drift: ``(batch,)``, those of attacked inputs are no farther from those of the samples.
    """

    point: Tensor
    off: Tensor
    drift: Tensor

    @property
    def away(self) -> Tensor:
        """Distance of the exact vectors of attacked inputs, at most."""
        return (self.off + self.drift) * ABOVE

    @property
    def lengths(self) -> Tensor:
        """Upper bound of the norms of the points."""
        return frobenius(self.point.flatten(1)[:, None])


@dataclass(frozen=True)
class Computed:
    """Bounds of a vector in the middle of a network, exact and computed.

    Attributes:
        shape: without the batch.
        size: the exact vector is no longer.
        error: the computed vector is no farther from the exact one.
        offset: the exact vector for an input of 0 is no longer.
        near: vectors near the exact one, if bounds are those of samples.
    """

    shape: Shape
    size: Size
    error: Size = 0.0
    offset: float = 0.0
    near: Reference | None = None

    @property
    def reach(self) -> Size:
        """The computed vector is no longer."""
        return (self.size + self.error) * ABOVE

    @property
    def count(self) -> int:
        """Its entries."""
        return math.prod(self.shape)

    def as_exact(self) -> Self:
        """Return the computed vector, taken for an exact one."""
        near = self.near
        if near is not None:
            near = replace(near, drift=(near.drift + self.error) * ABOVE)
        return type(self)(self.shape, self.reach, near=near)


@dataclass(frozen=True)
class Run:
    """One part, run on computed vectors ``x`` up to a length.

    Attributes:
        arithmetic: of the part.
        x: its input, taken as exact: ``x.reach`` is its length, ``x.near`` what is known of it.
        shape: of the output, without the batch.
        lipschitz: a proved constant of the part.
    """

    arithmetic: Arithmetic
    x: Computed
    shape: Shape
    lipschitz: float

    @property
    def count(self) -> int:
        """Entries of the output."""
        return math.prod(self.shape)

    def rounding(self, operations: int, magnitude: Size) -> Size:
        """Rounding error of the output, by ``Arithmetic.rounding``."""
        return self.arithmetic.rounding(operations, magnitude, self.count)


class Local(NamedTuple):
    """Result of a rule: bounds of ``|f(0)|`` and of the rounding inside f."""

    offset: float
    error: Size
