r"""Rounding in one part of a network: the arithmetic, and the form of the rules.

A part with the exact function f is followed with two numbers, a bound of the exact vector and one
of the distance between it and the computed vector. A rule adds what happens inside the part,

.. math:: |\hat f(x) - f(x)| \le \gamma_n |\text{terms}|,

where n counts the operations on the way of each term to the result and :math:`|\text{terms}|` is
the Euclidean norm of the sums of absolute values of what is added (Higham, 2002, section 3.1).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch

from onelip.errors import NonFiniteError

Shape = tuple[int, ...]

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

    def rounding(self, operations: int, magnitude: float, count: int) -> float:
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

    def check(self, magnitude: float) -> None:
        """Refuse numbers that may overflow.

        Raises:
            NonFiniteError: they may.
        """
        if not magnitude * ABOVE <= self.largest:
            raise NonFiniteError(
                f"numbers up to {magnitude:.3g} may overflow, the largest is {self.largest:.3g}: "
                "smaller weights, a smaller reach, or model.double()"
            )


@dataclass(frozen=True)
class Computed:
    """Bounds of a vector in the middle of a network, exact and computed.

    Attributes:
        shape: without the batch.
        size: the exact vector is no longer.
        error: the computed vector is no farther from the exact one.
        offset: the exact vector for an input of 0 is no longer.
    """

    shape: Shape
    size: float
    error: float = 0.0
    offset: float = 0.0

    @property
    def reach(self) -> float:
        """The computed vector is no longer."""
        return (self.size + self.error) * ABOVE

    @property
    def count(self) -> int:
        """Its entries."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Run:
    """One part, run on computed vectors ``x`` up to a length.

    Attributes:
        arithmetic: of the part.
        x: its input, taken as exact: ``x.reach`` is its length.
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

    def rounding(self, operations: int, magnitude: float) -> float:
        """Rounding error of the output, by ``Arithmetic.rounding``."""
        return self.arithmetic.rounding(operations, magnitude, self.count)


class Local(NamedTuple):
    """Result of a rule: bounds of ``|f(0)|`` and of the rounding inside f."""

    offset: float
    error: float
