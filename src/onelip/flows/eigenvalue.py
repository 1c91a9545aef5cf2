"""The smallest eigenvalue of a Gram matrix, proved from below."""

import torch
from torch import Tensor

from onelip.norms.rounding import UNIT, downward, exact, frobenius, upward
from onelip.norms.spectral import largest_norm, power_of_two, product_error

_LEAST = 1e-250  # of the scaled matrix: what is smaller may have been lost to underflow


def least_eigenvalue(weight: Tensor) -> Tensor:
    r"""Proved lower bound of the smallest eigenvalue of ``W^T W``.

    With c above the largest eigenvalue of G it is :math:`c - \|c I - G\|`.

    Bound: never above the exact value; within about 1e-8 ``|W|^2`` of it.
    Cost: that of two proved norms.

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
    scale = power_of_two(matrix)
    scaled = matrix * scale
    gram = scaled.mT @ scaled
    above = largest_norm(gram[None]).to(gram)
    shifted = -gram
    shifted.diagonal().add_(above)
    error = product_error(scaled) + UNIT * frobenius(shifted)
    left = downward(above.cpu() - largest_norm(shifted[None], upward(error, 4)), 1)
    if left < _LEAST:
        return zero
    return (left / scale / scale).clamp(max=torch.finfo(torch.float64).max)
