"""Slow and exact: what fast code is compared with."""

import math
from collections.abc import Callable

import torch
from flint import arb, arb_mat, ctx
from torch import Tensor

PRECISION = 200


def materialised(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map of single inputs, one basis vector a column."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return operator(basis).flatten(1).T.contiguous()


def sigma_max(matrix: Tensor) -> float:
    """The float64 SVD, right to a few units in the last place."""
    return float(torch.linalg.matrix_norm(matrix.detach().to(_wide(matrix)), 2))


def norm_below(matrix: Tensor) -> arb:
    """A proved lower bound of the spectral norm, as close as the SVD's leading vector allows.

    ``|M v| / |v|`` in ball arithmetic, for one vector v. The error is quadratic in that of v.
    """
    real = _real(matrix.detach())
    peak = float(real.abs().max()) if real.numel() else 0.0
    if peak == 0:
        return arb(0)
    exponent = math.frexp(peak)[1]
    scaled = torch.ldexp(
        torch.ldexp(real, torch.tensor(-exponent // 2)), torch.tensor(-exponent - -exponent // 2)
    )
    vector = torch.linalg.svd(scaled, full_matrices=False).Vh[0]
    with ctx.workprec(PRECISION):
        column = _ball_matrix(vector[:, None])
        image = _ball_matrix(real) * column
        return (_square(image) / _square(column)).sqrt().lower()


def is_above(bound: float | Tensor, lower: arb) -> bool:
    """Whether a float is certainly not below a ball."""
    with ctx.workprec(PRECISION):
        return bool(arb(float(bound)) >= lower)


def relative_excess(bound: float | Tensor, lower: arb) -> float:
    with ctx.workprec(PRECISION):
        return float(arb(float(bound)) / lower - 1)


def _ball_matrix(matrix: Tensor) -> arb_mat:
    return arb_mat([[arb(entry) for entry in row] for row in matrix.tolist()])


def _square(column: arb_mat) -> arb:
    return (column.transpose() * column)[0, 0]


def _real(matrix: Tensor) -> Tensor:
    """The same norm from real entries."""
    wide = matrix.to(_wide(matrix))
    if not wide.is_complex():
        return wide
    return torch.cat([torch.cat([wide.real, -wide.imag], 1), torch.cat([wide.imag, wide.real], 1)])


def _wide(matrix: Tensor) -> torch.dtype:
    return torch.complex128 if matrix.is_complex() else torch.float64
