"""Batches of matrices with bounds of their errors."""

from typing import NamedTuple

from torch import Tensor

from onelip.bounds.neighbourhood.dense_layers import Affine
from onelip.norms.batched import each
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward


class Approx(NamedTuple):
    """Matrices ``(batch or 1, rows, columns)``, each off by ``error`` in Frobenius norm at most."""

    matrix: Tensor
    error: Tensor

    def times(self, affine: Affine) -> "Approx":
        """Return the products with a linear map, applied before these matrices."""
        size, columns = frobenius(self.matrix), self.matrix.shape[2]
        # (M + dM)(A + dA) = MA + dM (A + dA) + M dA; the first term uses the exact norm of A + dA.
        new = size * (affine.error + gamma(columns) * frobenius(affine.matrix))
        lost = columns * self.matrix.shape[1] * affine.matrix.shape[1] * UNDERFLOW
        error = upward(self.error * affine.norm + new + lost, 8)
        return Approx(self.matrix @ affine.matrix, error)

    def scaled(self, columns: Tensor) -> "Approx":
        """Scale each column by a number, ``(batch, columns)``."""
        matrix = self.matrix * columns[:, None]
        largest = columns.abs().amax(1) if columns.shape[1] else columns.new_zeros(len(columns))
        lost = matrix[0].numel() * UNDERFLOW
        return Approx(matrix, upward(self.error * largest + 2 * UNIT * frobenius(matrix) + lost, 8))

    def plus(self, other: "Approx") -> "Approx":
        """Return the sum."""
        matrix = self.matrix + other.matrix
        new = 2 * UNIT * frobenius(matrix)
        return Approx(matrix, upward(self.error + other.error + new, 4))

    @property
    def transposed(self) -> "Approx":
        """The transposed matrices."""
        return Approx(self.matrix.mT, self.error)

    @property
    def lengths(self) -> Tensor:
        """Bounds of the norms of the rows, ``(batch, rows)``."""
        return upward(frobenius(self.matrix[:, :, None]) + self.error[:, None], 1)

    @property
    def norms(self) -> Tensor:
        """Bounds of the spectral norms, ``(batch,)``."""
        return each(self.matrix, self.error)
