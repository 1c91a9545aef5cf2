"""Slow and exact: what fast code is compared with."""

import itertools
import math
from collections.abc import Callable

import torch
from flint import arb, arb_mat, ctx
from torch import Tensor

from onelip.chains import Chain

PRECISION = 200


def materialised(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear map of single inputs, one basis vector a column."""
    basis = torch.eye(math.prod(shape), dtype=torch.float64).view(-1, *shape)
    return operator(basis).flatten(1).T.contiguous()


def matrix_of(layer: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The matrix of an affine layer, without its bias."""
    with torch.no_grad():
        zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
        return materialised(lambda x: layer(x) - zero, shape)


def positive_q(matrix: Tensor) -> Tensor:
    """The Q of a QR factorisation whose R has a positive diagonal."""
    q, r = torch.linalg.qr(matrix)
    return q * r.diagonal().sgn()


def sigma_max(matrix: Tensor) -> float:
    """The float64 SVD, right to a few units in the last place."""
    return float(torch.linalg.matrix_norm(matrix.detach().to(_wide(matrix)), 2))


def exact_relu(weights: list[Tensor]) -> float:
    """One hidden layer, no more neurons than inputs: the largest norm over all patterns."""
    first, second = weights
    patterns = torch.tensor(list(itertools.product((0.0, 1.0), repeat=len(first)))).double()
    jacobians = (second * patterns[:, None]) @ first
    return float(torch.linalg.matrix_norm(jacobians, 2).max())


def exact_max_min(weights: list[Tensor]) -> float:
    """One hidden layer of sorted pairs: the largest norm over all permutations."""
    first, second = weights
    swaps = itertools.product((False, True), repeat=len(first) // 2)
    norms = []
    for swap in swaps:
        order = [i ^ int(swap[i // 2]) for i in range(len(first))]
        norms.append(sigma_max(second @ first[order]))
    return max(norms)


def sampled(chain: Chain, points: int = 60) -> float:
    """The largest norm of a Jacobian at random points: at most the Lipschitz constant."""
    best = 0.0
    for scale in (0.3, 3.0):
        for x in scale * torch.randn(points // 2, *chain.inputs, dtype=torch.float64):
            jacobian = torch.autograd.functional.jacobian(lambda v: chain.forward(v[None])[0], x)
            best = max(best, sigma_max(jacobian.reshape(math.prod(chain.outputs), -1)))
    return best


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


def full_transform(x: Tensor, blocks: Tensor) -> Tensor:
    """Complex transforms and a loop over all frequencies; ``blocks`` is (h, w, out, in)."""
    height, width = x.shape[-2:]
    seen = torch.fft.fft2(x.to(torch.complex128))
    out = torch.zeros(len(x), blocks.shape[2], height, width, dtype=torch.complex128)
    for i, j in itertools.product(range(height), range(width)):
        for b in range(len(x)):
            out[b, :, i, j] = blocks[i, j] @ seen[b, :, i, j]
    return torch.fft.ifft2(out)


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
