"""Batches of matrices with bounds of their errors."""

from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.neighbourhood.dense_layers import Affine
from onelip.norms.rounding import UNDERFLOW, UNIT, frobenius, gamma, upward


class Approx(NamedTuple):
    """Matrices ``(batch or 1, rows, columns)``, each off by ``error`` in Frobenius norm at most."""

    matrix: Tensor
    error: Tensor

    def under(self, affine: Affine) -> "Approx":
        """Return the products with a linear map, applied after these matrices."""
        size, rows = frobenius(self.matrix), affine.matrix.shape[0]
        inner, columns = self.matrix.shape[1:]
        # (A + dA)(M + dM) = AM + (A + dA) dM + dA M; the second term uses the norm of A + dA.
        new = size * (affine.error + gamma(inner) * frobenius(affine.matrix))
        lost = inner * rows * columns * UNDERFLOW
        error = upward(self.error * affine.norm + new + lost, 8)
        return Approx(affine.matrix @ self.matrix, error)

    def scaled(self, rows: Tensor) -> "Approx":
        """Scale each row by a number, ``(batch, rows)``."""
        matrix = self.matrix * rows[:, :, None]
        largest = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
        lost = matrix[0].numel() * UNDERFLOW
        return Approx(matrix, upward(self.error * largest + 2 * UNIT * frobenius(matrix) + lost, 8))

    def plus(self, other: "Approx") -> "Approx":
        """Return the sum."""
        matrix = self.matrix + other.matrix
        new = 2 * UNIT * frobenius(matrix)
        return Approx(matrix, upward(self.error + other.error + new, 4))

    def picked(self, index: Tensor) -> "Approx":
        """Pick some of the rows, ``(batch, count)``."""
        return Approx(self.matrix.take_along_dim(index[:, :, None], 1), self.error)

    def beside(self, columns: Tensor) -> "Approx":
        """Return more columns at the end, which are exact."""
        return Approx(torch.cat([self.matrix, columns], 2), self.error)
