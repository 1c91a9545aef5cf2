r"""Proved bounds of extreme eigenvalues from a guessed level, a factor and its residual.

For a Hermitian matrix G, a number s and *any* matrix L,

.. math:: \lambda_{\max}(G) \le s + \|(s I - G) - L L^H\|_F , \qquad
          \lambda_{\min}(G) \ge s - \|(G - s I) - L L^H\|_F ,

since :math:`L L^H` is positive semidefinite. A Cholesky factor makes the last term tiny, and that
term is computed: whatever the factorisation did wrong ends up in the bound. (Verification after the
fact is Rump's idea: "Verified bounds for singular values", BIT 2011.)

Rounding, with :math:`S = \pm (s I - G)` for the stored G: the diagonal of S is rounded once, an
entry of :math:`L L^H` is a sum of n products, and the computed difference C of both is rounded once
more. With :math:`u |\mathrm{diag}\, S| \le u (\|S - L L^H\|_F + \|L\|_F^2)` follows

.. math:: \|S - L L^H\|_F \le (1 + 6 u) (\|C\|_F + \gamma_{n + 2} \|L\|_F^2) .

A form says how G is stored: dense (``Dense``, here) or block tridiagonal (``banded.py``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor

from onelip.norms.rounding import UNIT, frobenius, sum_error, upward

FactorT = TypeVar("FactorT")

_ROWS = 64  # of a residual that are computed at a time


class Remainder(NamedTuple):
    """Residual of a matrix and a factor, as computed.

    Attributes:
        norm: not below the Frobenius norm of the computed difference.
        products: how many are added in an entry of ``L L^H``.
        square: not below the squared Frobenius norm of L, but for a few roundings.
    """

    norm: Tensor
    products: int
    square: Tensor


class Hermitian(Protocol[FactorT]):
    """A Hermitian matrix G, or a batch, as it is stored."""

    def shifted(self, level: Tensor, sign: int) -> Self:
        """Return ``sign (G - level I)``, each entry of the diagonal rounded once."""

    def factor(self) -> FactorT:
        """Return some L with ``L L^H`` close to G; anything, mostly NaN, if G is not positive."""

    def remainder(self, factor: FactorT) -> Remainder:
        """Compute ``G - L L^H``, for any L."""


def gap(matrix: Hermitian[FactorT], factor: FactorT) -> Tensor:
    """Bound of ``|G - L L^H|_F`` for any L, its own rounding added; NaN if L holds NaN."""
    norm, products, square = matrix.remainder(factor)
    return upward(norm + sum_error(products + 2, square), 4)


@dataclass(frozen=True)
class Trial(Generic[FactorT]):
    """A level that is tried as a bound of an eigenvalue: ``above`` and ``below`` make one."""

    matrix: Hermitian[FactorT]
    level: Tensor
    sign: int

    @cached_property
    def factor(self) -> FactorT:
        """Factor of the shifted matrix; from it follow better guesses."""
        return self._shifted.factor()

    @cached_property
    def bound(self) -> Tensor:
        """Proved bound: the level and the gap. NaN where the factorisation failed."""
        lost = gap(self._shifted, self.factor) + 2 * UNIT * self.level.abs()  # of this sum
        lost = upward(lost, 4)
        return self.level - lost if self.sign > 0 else self.level + lost

    @cached_property
    def _shifted(self) -> Hermitian[FactorT]:
        return self.matrix.shifted(self.level, self.sign)


def above(matrix: Hermitian[FactorT], level: Tensor) -> Trial[FactorT]:
    """Try whether a level is above the largest eigenvalue.

    The largest eigenvalue of G is at most ``.bound``, for every level and every factor.
    """
    return Trial(matrix, level, -1)


def below(matrix: Hermitian[FactorT], level: Tensor) -> Trial[FactorT]:
    """Try whether a level is below the smallest eigenvalue.

    The smallest eigenvalue of G is at least ``.bound``, for every level and every factor.
    """
    return Trial(matrix, level, 1)


def cholesky(matrix: Tensor) -> Tensor:
    """Compute Cholesky factors of a batch, NaN where there is none."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any():
        factor[failed > 0] = math.nan
    return factor


@dataclass(frozen=True)
class Dense:
    """A Hermitian matrix, or a batch, with all its entries, ``(..., n, n)``: real or complex.

    Attributes:
        matrix: the entries.
        factorise: how to factor them; nothing that it returns is trusted.
    """

    matrix: Tensor
    factorise: Callable[[Tensor], Tensor] = cholesky

    def shifted(self, level: Tensor, sign: int) -> "Dense":
        """Return ``sign (G - level I)``; a level for each matrix of the batch, or one for all."""
        matrix = self.matrix.clone() if sign > 0 else -self.matrix
        matrix.diagonal(dim1=-2, dim2=-1).add_(level[..., None], alpha=-sign)
        return Dense(matrix, self.factorise)

    def factor(self) -> Tensor:
        """Factor the matrix; nothing that is returned is trusted."""
        return self.factorise(self.matrix)

    def remainder(self, factor: Tensor) -> Remainder:
        """Compute ``G - L L^H``, with the number of products and the size of L."""
        half = self.matrix.shape[-1] > _ROWS and self._is_half(factor)
        return _remainder(self.matrix, factor, half=half)

    def _is_half(self, factor: Tensor) -> bool:
        """Whether the numbers above the diagonal say nothing new."""
        return not factor.triu(1).any() and torch.equal(self.matrix, self.matrix.mH)


@dataclass(frozen=True)
class Lower:
    """A Hermitian matrix, or a batch, whose lower triangle is stored, ``(..., n, n)``.

    What is stored above the diagonal may be rounded otherwise. It counts in blocks on the diagonal,
    of which the Hermitian part is meant, and not elsewhere: the matrix is off by at most
    ``sqrt(2)`` times what all that is stored is off by.

    Attributes:
        matrix: the entries.
    """

    matrix: Tensor

    def shifted(self, level: Tensor, sign: int) -> "Lower":
        """Return ``sign (G - level I)``; a level for each matrix of the batch, or one for all."""
        return Lower(Dense(self.matrix).shifted(level, sign).matrix)

    def factor(self) -> Tensor:
        """Factor the matrix; nothing that is returned is trusted."""
        return cholesky(self.matrix)

    def remainder(self, factor: Tensor) -> Remainder:
        """Compute ``G - L L^H``, L without what stands right of its blocks on the diagonal."""
        return _remainder(self.matrix, factor, half=True)


def _remainder(matrix: Tensor, factor: Tensor, *, half: bool) -> Remainder:
    """Compute the difference by rows; only the lower half of it and of the factor, if asked."""
    size = matrix.shape[-1]
    products = 8 * (size + 4) if matrix.is_complex() else size
    squares = factor.real.new_zeros(factor.shape[:-2])
    for start in range(0, size, _ROWS):
        stop = min(start + _ROWS, size)
        end = stop if half else size
        product = factor[..., start:stop, :end] @ factor[..., :end, :end].mH
        left = matrix[..., start:stop, :end] - product
        squares = squares + frobenius(left).square()
        if half and start:  # what is left of the diagonal block is there twice
            squares = squares + frobenius(left[..., :start]).square()
    norm = upward(squares, size + 4).sqrt() if size > _ROWS else squares.sqrt()
    return Remainder(upward(norm, 2), products, frobenius(factor).square())
