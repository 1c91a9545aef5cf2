"""Proved lower bound of the smallest eigenvalue of a Gram matrix."""

import torch
from torch import Tensor

from onelip.norms.rounding import downward, exact, power_of_two, product_error
from onelip.norms.verification import Dense, below

_MARGINS = (1e-15, 1e-13, 1e-11, 1e-9, 1e-7)  # below the guess, relative to the largest eigenvalue
_LEAST = 1e-250  # for the scaled matrix: a smaller eigenvalue may come from underflow


def least_eigenvalue(weight: Tensor) -> Tensor:
    r"""Proved lower bound of the smallest eigenvalue of ``W^T W``.

    Bound: never above the exact value; within about 1e-11 ``|W|^2`` of it up to some thousand
        columns.
    Cost: that of a proved norm.

    Args:
        weight: ``(rows, columns)``; 0 for fewer rows than columns.

    Returns:
        A 0-d float64 tensor.

    Raises:
        NonFiniteError: an entry is infinite or NaN.

    Example:
        >>> least_eigenvalue(torch.diag(torch.tensor([2.0, 3.0])))
        tensor(4.0000, dtype=torch.float64)
    """
    matrix, zero = exact(weight), torch.zeros((), dtype=torch.float64)
    if matrix.shape[0] < matrix.shape[1] or not matrix.any():
        return zero
    # a power of two scales without rounding
    scale = power_of_two(matrix)
    scaled = matrix * scale
    # Weyl: the rounding of the computed Gram matrix moves eigenvalues by at most its norm
    left = downward(_least(scaled.mT @ scaled).cpu() - product_error(scaled).cpu(), 1)
    if left < _LEAST:
        return zero
    return (left / scale / scale).clamp(max=torch.finfo(torch.float64).max)


def _least(gram: Tensor) -> Tensor:
    """Lower bound of the smallest eigenvalue of a matrix; 0 where nothing is proved."""
    values = torch.linalg.eigvalsh(gram)
    # the guess of eigvalsh is not trusted: the level is lowered until a Cholesky factor proves it
    for margin in _MARGINS:
        found = below(Dense(gram), values[0] - margin * values[-1]).bound
        if torch.isfinite(found):
            return found
    return torch.zeros_like(values[0])
